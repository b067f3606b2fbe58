"""Sentences of CoNLL files: a word a line with its tags in columns, and a blank line after each.

Columns are separated by tabs, or by blanks in a file without tabs. A line that has only blanks and
tabs ends a sentence too. Lines of -DOCSTART- and comments are left out. Of CoNLL-U the word is the
second column, and ranges such as 1-2 and empty nodes such as 1.1 are left out.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from modernbert.data.corpus_files import open_unpacked
from modernbert.data.records import ENCODING_REMEDY, Reading, Row

CONLL_SUFFIXES = (".conll", ".conllu", ".iob", ".iob2", ".bio", ".bioes", ".bmes", ".ner")

_CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_DOCUMENT = "-DOCSTART-"
_BRACKETED = "#begin document"
_BLANKS = re.compile(r"[ \t]+")
_TAG = re.compile(r"O|[BIESLUM]-\S+")


@dataclass(frozen=True)
class _Line:
    """A line that is not blank, its cells, and its number from 1."""

    text: str
    cells: list[str]
    number: int


def read_conll(reading: Reading) -> Iterator[Row]:
    """Yield each sentence as lists: `tokens`, `tags` of the last column, and numbered columns.

    The columns of CoNLL-U have their names, and the tags are those of `upos`.
    """
    path, rules = reading.file.path, reading.rules
    is_conllu = reading.file.suffix == ".conllu"
    num_columns = index = 0
    for sentence in _sentences(_lines(reading)):
        if sentence[0].text.startswith(_BRACKETED):
            where = f"{path}, line {sentence[0].number}"
            rules.skip(where, "CoNLL-2012", detail="write a word and its tag a line, as CoNLL-2003")
            return
        num_columns = num_columns or _usual_width(sentence)
        lines = list(_words(sentence, num_columns, is_conllu=is_conllu))
        bad = next((line for line in lines if len(line.cells) != num_columns), None)
        if bad is not None:
            rules.skip(
                f"{path}, line {bad.number}",
                "another number of columns",
                detail=f"got {len(bad.cells)}, expected {num_columns}: a word and its tags",
            )
        elif lines:
            columns = list(map(list, zip(*(line.cells for line in lines), strict=True)))
            values = _of_conllu(columns) if is_conllu else _of_columns(columns)
            if index == 0:
                reading.facts.append(_understood(columns, is_conllu=is_conllu))
            yield Row(values, index, f"{path}, line {lines[0].number}")
            index += 1


def is_conll(sample: str) -> bool:
    r"""Return whether the beginning of a file looks like CoNLL: columns with BIO-like tags last.

    >>> is_conll("EU B-ORG\nrejects O\n\nPeter B-PER\n"), is_conll("a fine day\n")
    (True, False)
    """
    lines = list(_split(sample.splitlines()[:1000]))[:-1] or list(_split(sample.splitlines()))
    sentences = list(_sentences(lines))
    widths = _usual_width([line for sentence in sentences for line in sentence])
    words = [line for each in sentences for line in _words(each, widths, is_conllu=False)]
    return (
        widths > 1
        and bool(words)
        and all(len(line.cells) == widths and _TAG.fullmatch(line.cells[-1]) for line in words)
    )


def _lines(reading: Reading) -> Iterator[_Line | None]:
    """Yield the lines of a file; None for a blank one."""
    with open_unpacked(reading.file, reading.settings.encoding) as stream:

        def decoded() -> Iterator[str]:
            for number, line in enumerate(stream, start=1):
                reading.bytes_done = stream.bytes_done
                try:
                    yield line.decode("utf-8" if number > 1 else "utf-8-sig")
                except UnicodeDecodeError:
                    where = f"{reading.file.path}, line {number}"
                    reading.rules.skip(where, "invalid UTF-8", detail=ENCODING_REMEDY)

        yield from _split(decoded())


def _split(lines: Iterable[str]) -> Iterator[_Line | None]:
    """Yield lines as cells, None for a blank one; the first word's line decides about tabs."""
    has_tabs: bool | None = None
    for number, line in enumerate(lines, start=1):
        text = line.strip(" \t\r\n\ufeff")
        if not text:
            yield None
            continue
        if has_tabs is None and not text.startswith(("#", _DOCUMENT)):
            has_tabs = "\t" in text
        cells = text.split("\t") if has_tabs else _BLANKS.split(text)
        yield _Line(text, [cell.strip(" ") for cell in cells], number)


def _sentences(lines: Iterable[_Line | None]) -> Iterator[list[_Line]]:
    sentence: list[_Line] = []
    for line in lines:
        if line is not None:
            sentence.append(line)
        elif sentence:
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def _usual_width(lines: Sequence[_Line]) -> int:
    """Return the number of columns of most lines; 0 if there is no word."""
    words = [line for line in lines if not line.text.startswith(("#", _DOCUMENT))]
    counted = Counter(len(line.cells) for line in words)
    return counted.most_common(1)[0][0] if counted else 0


def _words(lines: Sequence[_Line], num_columns: int, *, is_conllu: bool) -> Iterator[_Line]:
    """Return the lines of a sentence that are words."""
    is_begun = False
    for line in lines:
        if line.text.startswith(_DOCUMENT) or _is_comment(line, num_columns, is_begun=is_begun):
            continue
        is_begun = True
        if not (is_conllu and not line.cells[0].isdecimal()):
            yield line


def _is_comment(line: _Line, num_columns: int, *, is_begun: bool) -> bool:
    """Return whether a line with # is a comment: it has other columns, or no tag at its end."""
    if not line.text.startswith("#"):
        return False
    return len(line.cells) != num_columns or not (is_begun or _TAG.fullmatch(line.cells[-1]))


def _has_numbers(columns: list[list[str]]) -> bool:
    """Return whether the first column numbers the words, and the second has them."""
    numbers = [str(number + 1) for number in range(len(columns[0]))]
    return len(columns) > 2 and columns[0] == numbers


def _understood(columns: list[list[str]], *, is_conllu: bool) -> str:
    """Describe for people what the columns are taken for."""
    if is_conllu:
        return "CoNLL-U columns"
    words = 2 if _has_numbers(columns) else 1
    return f"{len(columns)} CoNLL columns, tokens in column {words} and tags in {len(columns)}"


def _of_columns(columns: list[list[str]]) -> dict[str, Any]:
    return {
        "tokens": columns[int(_has_numbers(columns))],
        "tags": columns[-1],
        **{str(number): column for number, column in enumerate(columns, start=1)},
    }


def _of_conllu(columns: list[list[str]]) -> dict[str, Any]:
    named = dict(zip(_CONLLU_COLUMNS, columns, strict=False))
    return {"tokens": named.get("form", []), "tags": named.get("upos", []), **named}
