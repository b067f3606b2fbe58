"""Rows of JSON: one object a line, a list of objects, or questions as SQuAD nests them.

{"data": [{"paragraphs": [{"context": ..., "qas": [{"id", "question", "answers"}]}]}]}

The articles, or the paragraphs alone, may also be a list by themselves. Texts with their entities
may be pairs, as spaCy's older versions have them: [["A text.", {"entities": [[0, 1, "X"]]}]].
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from modernbert.data.corpus_files import CorpusFile, UnpackedStream, encoding_of, open_unpacked
from modernbert.data.records import Reading, Row
from modernbert.data.rows.cells import shown
from modernbert.data.rows.plain_text import BYTE_ORDER_MARK, is_binary, kind_of_binary
from modernbert.errors import DocumentError


def questions_of(articles: Sequence[Any], source: str) -> list[dict[str, Any]] | None:
    """Return the questions, each with its context; None if the articles are not SQuAD's.

    A question without `answers` gives a row without them, which is to be answered.

    Raises:
        DocumentError: A paragraph lacks a context or questions, or there is none; with its place.
    """
    if not any(isinstance(each, dict) and "paragraphs" in each for each in articles):
        return None
    rows = [
        row
        for number, article in enumerate(articles, start=1)
        for row in _of_article(article, f"{source}, article {number}")
    ]
    if not rows:
        raise DocumentError(f"{source}: in SQuAD's format, but without any question")
    return rows


def _of_article(article: Any, where: str) -> Iterator[dict[str, Any]]:
    paragraphs = _part(article, "paragraphs", list, where)
    for number, paragraph in enumerate(paragraphs, start=1):
        place = f"{where}, paragraph {number}"
        questions = _part(paragraph, "qas", list, place)
        context = _part(paragraph, "context", str, place) if questions else ""
        for index, question in enumerate(questions, start=1):
            yield _row(question, context, f"{place}, question {index}")


def _row(question: Any, context: str, where: str) -> dict[str, Any]:
    text = _part(question, "question", str, where)
    row = {"id": question["id"]} if "id" in question else {}
    row |= {"question": text, "context": context}
    if question.get("is_impossible"):
        return {**row, "answers": []}
    return {**row, "answers": question["answers"]} if "answers" in question else row


def _part(value: Any, key: str, kind: type, where: str) -> Any:
    """Return the value of a key.

    Raises:
        DocumentError: There is no such value of the right type.
    """
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        expected = "a list" if kind is list else "a text"
        raise DocumentError(
            f"{where}: got {shown(found)} for {key!r}, expected {expected}; add it or leave the "
            "part out"
        )
    return found


MAX_LINE_BYTES = 64 << 20
MAX_VALUE_BYTES = 1 << 30

_BLOCK_BYTES = 1 << 20
_WHOLE = "the file is one JSON value, not a line for each object; let its name end in .json"
_OBJECT = 'expected one such as {"text": "..."}'


def read_lines(reading: Reading) -> Iterator[Row]:
    """Yield the object of each line; of a range, the lines that begin in it."""
    with open_unpacked(reading.file, reading.settings.encoding) as stream:
        position = _first_line(stream, reading.start)
        index = 0
        while reading.stop is None or position < reading.stop:
            line = stream.readline(MAX_LINE_BYTES)
            if index == 0 and reading.start == 0 and _is_no_lines_file(line, reading):
                return
            if not line:
                return
            position += len(line)
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                position += _discard_line(stream)
                reading.rules.skip(_name(reading, index), f"over {MAX_LINE_BYTES >> 20} MB long")
            elif (row := _row_of_line(line, reading, index)) is not None:
                yield row
            reading.bytes_done = stream.bytes_done - reading.start
            index += 1


def read_json(reading: Reading) -> Iterator[Row]:
    """Yield the rows of a .json file: its lines, if the first is an object and others follow."""
    if has_lines(reading.file, reading.settings.encoding):
        yield from read_lines(reading)
        return
    path, rules = reading.file.path, reading.rules
    with open_unpacked(reading.file, reading.settings.encoding) as stream:
        content = stream.read(MAX_VALUE_BYTES)
        reading.bytes_done = stream.bytes_done
    if len(content) == MAX_VALUE_BYTES:
        rules.skip(path, f"one JSON value over {MAX_VALUE_BYTES >> 30} GB; write JSON Lines")
    elif not content.strip():
        rules.skip(path, "empty")
    elif is_binary(content):
        rules.skip(path, "binary", detail=kind_of_binary(content))
    else:
        yield from _rows_of_value(content, reading)


def has_lines(file: CorpusFile, encoding: str | None = None) -> bool:
    """Return whether a JSON file has an object per line: the first line is one of several."""
    with open_unpacked(file, encoding) as stream:
        first = b""
        while not first.strip() and (block := stream.readline(MAX_LINE_BYTES)):
            first = block
        rest = stream.peek(1).strip()
    try:
        return isinstance(_parsed(first), dict) and bool(rest)
    except (ValueError, RecursionError):
        # A line that is cut or spoilt, where another one follows that is an object.
        return first.rstrip().endswith(b"}") and rest.startswith(b"{")


def can_be_cut(file: CorpusFile) -> bool:
    """Return whether ranges of a file can be read independently, line by line."""
    if file.compression or file.suffix not in (".jsonl", ".ndjson", ".json"):
        return False
    try:
        with Path(file.path).open("rb") as opened:
            if encoding_of(opened.read(4)) is not None:
                return False
        return file.suffix != ".json" or has_lines(file)
    except OSError:  # which whoever reads it tells of
        return file.suffix != ".json"


def _rows_of_value(content: bytes, reading: Reading) -> Iterator[Row]:
    path, rules = reading.file.path, reading.rules
    try:
        value = _parsed(content)
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        rules.skip(f"{path}, line {number}", "invalid UTF-8")
        return
    except (ValueError, RecursionError) as error:
        rules.skip(path, "broken JSON", detail=str(error))
        return
    for index, row in enumerate(_rows_within(value, path)):
        where = f"{path}, row {index + 1}"
        if isinstance(row, dict):
            yield Row(row, index, where)
        else:
            rules.skip(where, "not a JSON object", detail=_OBJECT)


def _rows_within(value: Any, source: str) -> Sequence[Any]:
    """Yield the rows of a JSON value, however they are nested."""
    if (frame := _of_pandas(value)) is not None:
        return frame
    nested = value.get("data") if isinstance(value, dict) else None
    if isinstance(nested, list):
        return questions_of(nested, source) or nested
    rows = value if isinstance(value, list) else [value]
    if rows and all(map(_is_paragraph, rows)):
        return questions_of([{"paragraphs": rows}], source) or rows
    if rows and all(map(_has_paragraphs, rows)):
        return questions_of(rows, source) or rows
    pairs = value.get("annotations") if isinstance(value, dict) else value
    if isinstance(pairs, list) and all(map(_is_pair, pairs)):
        return [{"text": text, **spans} for text, spans in pairs]
    return rows


def _of_pandas(value: Any) -> list[Any] | None:
    """Return the rows of a frame as pandas writes it: by column, or split; None for others.

    >>> _of_pandas({"text": {"0": "a", "1": "b"}, "label": {"0": 1, "1": 0}})
    [{'text': 'a', 'label': 1}, {'text': 'b', 'label': 0}]
    """
    if not isinstance(value, dict) or not value:
        return None
    columns = list(value.values())
    if set(value) == {"columns", "index", "data"} and all(isinstance(x, list) for x in columns):
        names, rows = value["columns"], value["data"]
        if all(isinstance(row, list) and len(row) == len(names) for row in rows):
            return [dict(zip(map(str, names), row, strict=True)) for row in rows]
    if not all(isinstance(each, dict) and list(each) == list(columns[0]) for each in columns):
        return None
    if not all(key.isdecimal() for key in columns[0]):
        return None
    return [{name: value[name][key] for name in value} for key in columns[0]]


def _is_paragraph(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("qas"), list)


def _has_paragraphs(value: Any) -> bool:
    """Return whether a value is an article of SQuAD; others may have paragraphs too."""
    paragraphs = value.get("paragraphs") if isinstance(value, dict) else None
    return isinstance(paragraphs, list) and any(map(_is_paragraph, paragraphs))


def _is_pair(value: Any) -> bool:
    """Return whether a value is a text with its entities, as spaCy writes them."""
    is_pair = isinstance(value, list) and len(value) == 2
    return is_pair and isinstance(value[0], str) and isinstance(value[1], dict)


def _first_line(stream: UnpackedStream, start: int) -> int:
    """Go to the first line that begins at `start` or after it; returns its position."""
    if start == 0:
        return 0
    # A line that begins before the range belongs to the range before, all of it.
    stream.seek(start - 1)
    return start - 1 + _discard_line(stream)


def _discard_line(stream: UnpackedStream) -> int:
    """Read to the end of the line; returns the number of bytes."""
    count = 0
    while block := stream.readline(_BLOCK_BYTES):
        count += len(block)
        if block.endswith(b"\n"):
            break
    return count


def _is_no_lines_file(first_line: bytes, reading: Reading) -> bool:
    """Return whether the first line shows that the file has another format; it is then skipped."""
    if not first_line:
        reading.rules.skip(reading.file.path, "empty")
    elif is_binary(first_line):
        detail = kind_of_binary(first_line)
        reading.rules.skip(reading.file.path, "binary", detail=detail)
    else:
        return False
    return True


def _row_of_line(line: bytes, reading: Reading, index: int) -> Row | None:
    """Return the row of a line; None for a blank one and for a bad one, which is skipped."""
    if line.isspace():
        return None
    rules = reading.rules
    # The name is made only for a bad record: it may cost reading the file from its start.
    where = partial(_name, reading, index)
    try:
        record = _parsed(line)
    except UnicodeDecodeError:
        rules.skip(where, "invalid UTF-8")
    except (ValueError, RecursionError) as error:
        detail = _WHOLE if index == 0 and line.strip() in (b"{", b"[") else ""
        rules.skip(where, "broken JSON", detail=detail or (_reason(error) if rules.strict else ""))
    else:
        if isinstance(record, dict):
            return Row(record, index, where)
        detail = _WHOLE if isinstance(record, list) and index == 0 else _OBJECT
        rules.skip(where, "not a JSON object", detail=detail)
    return None


def _reason(error: Exception) -> str:
    """Return what is wrong with a line, and where in it."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _parsed(line: bytes) -> Any:
    return json.loads(line.removeprefix(BYTE_ORDER_MARK).decode())


def _name(reading: Reading, index: int) -> str:
    """Return the path and the number of the line in its file, from 1."""
    return f"{reading.file.path}, line {_lines_before(reading) + index + 1}"


def _lines_before(reading: Reading) -> int:
    """Count the lines that begin before the range; needed only to name a line in a message."""
    if reading.start == 0:
        return 0
    with open_unpacked(reading.file) as stream:
        position = _first_line(stream, reading.start)
        stream.seek(0)
        count = 0
        while position > 0 and (block := stream.read(min(position, _BLOCK_BYTES))):
            count += block.count(b"\n")
            position -= len(block)
    return count
