"""Labelled data of files of many kinds, and of data sets of the `datasets` library.

    .csv, .tsv                 the first line names the columns; in .csv with commas or semicolons
    .jsonl, .ndjson            one JSON object a line
    .json                      the same, one list of objects, or questions as SQuAD publishes them
    .parquet, .arrow           columns; class labels of the `datasets` library get their names
    a folder                   a data set that `datasets` has saved
    owner/name[/config]        a data set of the hub, through `datasets`

Text files may be packed as .gz, .xz or .zst. A split of several is named after a colon:
`folder:train`, `owner/name:validation`.
"""

import csv
import io
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from modernbert.data.corpus_files import CorpusFile, find_files, open_unpacked
from modernbert.data.table import Row, Table
from modernbert.data.table_sets import may_be_hub_id, read_columns, read_folder, read_hub
from modernbert.errors import DocumentError

_PACKED = (".gz", ".xz", ".zst")
# For a row with too many or too few values, by what separates them.
_REMEDIES = {
    ",": "put a text with a comma or a line end in quotation marks",
    ";": "put a text with a semicolon or a line end in quotation marks",
    "\t": "a text with a tab or a line end needs a .csv or .jsonl file",
}


def read_table(source: Path | str) -> Table:
    """All rows of a file, of a saved data set or of one of the hub.

    Raises:
        DocumentError: no such file or data set, one that cannot be read, or one without rows.
    """
    table = _read(str(source))
    if not table.rows:
        raise DocumentError(f"{table.source}: has no rows")
    return table


def _read(source: str) -> Table:
    path, split = _path_and_split(source)
    if path.is_dir():
        return read_folder(path, split)
    if path.exists() or path.suffix or not may_be_hub_id(str(path)):
        (file,) = find_files([path])
        return _read_file(file)
    return read_hub(str(path), split)


def _path_and_split(source: str) -> tuple[Path, str | None]:
    if Path(source).exists() or ":" not in source:
        return Path(source).expanduser(), None
    name, _, split = source.rpartition(":")
    return Path(name).expanduser(), split


def _read_file(file: CorpusFile) -> Table:
    suffix = _suffix(Path(file.path))
    if suffix in (".csv", ".tsv"):
        return _unpacked(file, lambda text: _from_csv(file.path, text, tab=suffix == ".tsv"))
    if suffix in (".jsonl", ".ndjson"):
        return _unpacked(file, lambda text: _from_lines(file.path, text))
    if suffix == ".json":
        return _unpacked(file, lambda text: _from_json(file.path, text.read()))
    if suffix in (".parquet", ".arrow"):
        return read_columns(file.path, [Path(file.path)])
    raise DocumentError(
        f"{file.path}: of an unknown kind; expected .csv, .tsv, .jsonl, .json or .parquet"
    )


def _suffix(path: Path) -> str:
    """What the name tells of the content, within a packing."""
    packed = path.suffix.lower() in _PACKED
    return (path.with_suffix("") if packed else path).suffix.lower()


def _unpacked(file: CorpusFile, read: Callable[[io.TextIOWrapper], Table]) -> Table:
    try:
        with (
            open_unpacked(file) as stream,
            io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text,
        ):
            return read(text)
    except UnicodeDecodeError as error:
        raise DocumentError(f"{file.path}: is not UTF-8: {error}; convert it") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DocumentError(f"{file.path}: truncated or unreadable: {error}") from None


def _from_csv(source: str, text: io.TextIOWrapper, *, tab: bool) -> Table:
    csv.field_size_limit(sys.maxsize)
    header = next(text, "")
    lines = chain([header], text)
    separator = "\t" if tab else _separator(header)
    # Tab-separated files as GLUE has them hold quotation marks that quote nothing.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if tab else csv.QUOTE_MINIMAL
    reader = csv.reader(lines, delimiter=separator, quoting=quoting)
    try:
        columns = tuple(next(reader, ()))
        _require_names(source, columns)
        rows = [
            _csv_row(columns, values, f"{source}, line {reader.line_num}", separator)
            for values in reader
            if values
        ]
    except csv.Error as error:
        raise DocumentError(f"{source}, line {reader.line_num}: {error}") from None
    return Table(source=source, columns=columns, rows=rows)


def _separator(header: str) -> str:
    """What stands between the columns of a CSV file, from the line that names them.

    A semicolon, as spreadsheet programs of many countries save it, where the line has one and no
    comma; a comma else. What is within quotation marks does not count.

    >>> _separator("text;label"), _separator("text,label;2"), _separator('"a; b"')
    (';', ',', ',')
    """
    outside = "".join(header.split('"')[::2])
    return ";" if ";" in outside and "," not in outside else ","


def _csv_row(columns: Sequence[str], values: Sequence[str], where: str, separator: str) -> Row:
    if len(values) != len(columns):
        raise DocumentError(
            f"{where}: has {len(values)} values for {len(columns)} columns; {_REMEDIES[separator]}"
        )
    return dict(zip(columns, values, strict=True))


def _require_names(source: str, columns: Sequence[str]) -> None:
    if not columns:
        raise DocumentError(f"{source}: is empty; expected a first line that names the columns")
    for name in columns:
        if columns.count(name) > 1:
            raise DocumentError(f"{source}: two columns are named {name!r}; rename one")


def _from_lines(source: str, text: io.TextIOWrapper) -> Table:
    rows: list[Row] = []
    for number, line in enumerate(text, start=1):
        if not line.isspace():
            rows.append(_parsed_object(line, f"{source}, line {number}"))
    return Table(source=source, columns=_columns_of(rows), rows=rows)


def _parsed_object(line: str, where: str) -> Row:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{where}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise DocumentError(f"{where}: got {type(value).__name__}, expected a JSON object")
    return value


def _columns_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The names that occur in any row, in the order of their first occurrence."""
    return tuple(dict.fromkeys(name for row in rows for name in row))


def _from_json(source: str, content: str) -> Table:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return _from_lines(source, io.StringIO(content))  # type: ignore[arg-type]
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        rows = list(_squad_questions(value["data"])) or value["data"]
    else:
        rows = value if isinstance(value, list) else [value]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DocumentError(f"{source}, row {number}: expected a JSON object")
    return Table(source=source, columns=_columns_of(rows), rows=rows)


def _squad_questions(articles: Sequence[Any]) -> Iterator[Row]:
    """The questions of SQuAD's own nested format, one a row."""
    for article in articles:
        for paragraph in article.get("paragraphs", ()) if isinstance(article, dict) else ():
            for question in paragraph["qas"]:
                row = {key: question[key] for key in ("id", "question") if key in question}
                yield {
                    **row,
                    "context": paragraph["context"],
                    "answers": [] if question.get("is_impossible") else question["answers"],
                }
