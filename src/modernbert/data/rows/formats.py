"""Which reader reads which file: the one place to register a new format.

    .csv, .tsv                 comma, semicolon, tab or pipe; the first row names the columns
    .jsonl, .ndjson            one JSON object a line
    .json                      the same, a list of objects, or questions as SQuAD publishes them
    .parquet, .arrow, .feather columns; class labels of the `datasets` library get their names
    .conll, .iob, .bio, ...    a word and its tags a line, a blank line after each sentence
    anything else              text: a document, a text a line, or rows of labelled data

Each may be packed as .gz, .xz or .zst, except for Parquet and Arrow. Labelled data in plain text is
what its lines look like:

    word tag                   CoNLL: a word a line, a blank line after each sentence
    __label__x a text          fastText's, with one label or several
    columns with tabs          a table
    label a text               as in TREC's questions: few labels, each on many lines
"""

import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from modernbert.data.corpus_files import CorpusFile, open_unpacked
from modernbert.data.records import ENCODING_REMEDY, Reading, Row
from modernbert.data.rows.column_files import read_arrow, read_parquet
from modernbert.data.rows.conll import CONLL_SUFFIXES, is_conll, read_conll
from modernbert.data.rows.delimited import SAMPLE_BYTES, read_delimited
from modernbert.data.rows.json_files import read_json, read_lines
from modernbert.data.rows.plain_text import read_document, read_text_lines
from modernbert.extras import import_extra
from modernbert.reading import POINTER_REMEDY, is_pointer

_FASTTEXT = "__label__"
_SUFFIXES = ("", ".txt", ".text", ".label", ".train", ".test", ".dev", ".data", ".ft")


def read_labelled_text(reading: Reading) -> Iterator[Row]:
    """Yield the rows of a text file, by what its beginning looks like."""
    sample = _sample(reading)
    lines = [line for line in sample.splitlines()[:1000] if line.strip()]
    if reading.file.suffix not in _SUFFIXES:
        reading.rules.skip(
            reading.file.path,
            "of an unknown kind; expected .csv, .tsv, .jsonl, .json, .parquet, .conll or .txt, "
            "perhaps packed as .gz, .xz or .zst",
        )
    elif not lines:
        reading.rules.skip(reading.file.path, "empty")
    elif is_conll(sample):
        yield from read_conll(reading)
    elif lines[0].startswith(_FASTTEXT):
        yield from _fasttext(reading)
    elif "\t" in lines[0]:
        yield from read_delimited(reading)
    elif _begins_with_labels(lines):
        reading.facts.append("the first word of each line is its label")
        for row in _lines(reading):
            label, _, text = row.values["text"].partition(" ")
            yield Row({"label": label, "text": text}, row.number, row.where)
    else:
        reading.rules.skip(
            reading.file.path,
            "text without labels; write rows of a text and a label as .csv or .jsonl",
        )


def read_words(reading: Reading) -> Iterator[Row]:
    """Yield the sentences of a CoNLL file, or each line of another file as a text."""
    yield from (read_conll if is_conll(_sample(reading)) else read_text_lines)(reading)


def _sample(reading: Reading) -> str:
    with open_unpacked(reading.file, reading.settings.encoding) as stream:
        content = stream.read(SAMPLE_BYTES)
    return content.decode("utf-8-sig", errors="replace")


def _lines(reading: Reading) -> Iterator[Row]:
    """Yield each line as a decoded text."""
    for row in read_text_lines(reading):
        content: bytes = next(iter(row.values.values()))
        try:
            yield Row({"text": content.decode()}, row.number, row.where)
        except UnicodeDecodeError:
            reading.rules.skip(row.where, "invalid UTF-8", detail=ENCODING_REMEDY)


def _fasttext(reading: Reading) -> Iterator[Row]:
    reading.facts.append("fastText labels")
    has_lists = any(len(_labels_and_text(row)[0]) != 1 for row in _lines(reading))
    for row in _lines(reading):
        labels, text = _labels_and_text(row)
        yield Row(
            {"label": labels if has_lists else labels[0], "text": text}, row.number, row.where
        )


def _labels_and_text(row: Row) -> tuple[list[str], str]:
    """Return the labels at the beginning of a line, and the text that follows."""
    labels, words = [], row.values["text"].split(" ")
    while words and words[0].startswith(_FASTTEXT):
        labels.append(words.pop(0).removeprefix(_FASTTEXT))
    return labels, " ".join(words)


def _begins_with_labels(lines: list[str]) -> bool:
    """Return whether all lines begin with one of few words, and something follows each."""
    firsts = {line.partition(" ")[0] for line in lines}
    follows = all(line.partition(" ")[2].strip() for line in lines)
    return follows and len(firsts) > 1 and len(firsts) * 2 <= len(lines)


READERS: dict[str, Callable[[Reading], Iterator[Row]]] = {
    ".jsonl": read_lines,
    ".ndjson": read_lines,
    ".json": read_json,
    ".tsv": read_delimited,
    ".csv": read_delimited,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    **dict.fromkeys(CONLL_SUFFIXES, read_conll),
}
"""By the ends of names; where a folder has a file in several formats, the first one is read."""

_TEXT_READERS = {
    "document": read_document,
    "lines": read_text_lines,
    "rows": read_labelled_text,
    "words": read_words,
}


def rows_of(reading: Reading) -> Iterator[Row]:
    """Yield the rows of one file, or of one range of it, in bounded memory.

    What cannot be read is skipped, or stops a strict reader: see `RecordRules`.
    """
    read = READERS.get(reading.file.suffix) or _TEXT_READERS[reading.texts]
    if reading.texts == "document" and reading.file.suffix in CONLL_SUFFIXES:
        read = read_document
    path, rules = reading.file.path, reading.rules
    broken = _broken_file_errors(reading.file)
    try:
        yield from read(reading)
    except UnicodeDecodeError as error:
        rules.skip(path, f"not {error.encoding} text", detail=error.reason)
    except broken as error:
        detail = str(error).partition("\n")[0]
        with suppress(OSError), Path(path).open("rb") as file:
            detail = POINTER_REMEDY if is_pointer(file.read(64)) else detail
        rules.skip(path, "truncated or unreadable", detail=detail)


def _broken_file_errors(file: CorpusFile) -> tuple[type[Exception], ...]:
    """Return the errors of reading a file whose bytes are not what its name promises."""
    errors: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, lzma.LZMAError)
    if file.compression == "zst":
        errors += (import_extra("zstandard").ZstdError,)
    if file.suffix in (".parquet", ".arrow", ".feather"):
        errors += (import_extra("pyarrow.lib").ArrowException,)
    return errors
