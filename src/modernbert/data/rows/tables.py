"""Labelled data as a `Table`: of files of every format, data sets, and objects of Python.

    a file                     see `data.rows.formats`
    a folder                   a data set that `datasets` has saved; or folders of text files, the
                               name of each being the label of its texts
    owner/name[/config][@rev]  a data set on the hub, through `datasets`
    an object                  a frame of pandas or polars, a table of pyarrow, a data set, a
                               dictionary of columns, or any number of dictionaries

A split of several is named after a colon: `folder:train`, `owner/name:validation`.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from modernbert.data.corpus_files import CorpusFile, find_files
from modernbert.data.records import Reading, RecordRules, Row, Skipped
from modernbert.data.rows.cells import shown
from modernbert.data.rows.formats import rows_of
from modernbert.data.rows.python_objects import (
    chosen_split,
    may_be_hub_id,
    read_hub,
    table_of_object,
)
from modernbert.data.rows.table import Table
from modernbert.data.settings import FileSettings
from modernbert.errors import DocumentError, InputError
from modernbert.files import new_file
from modernbert.kinds import NAMES, find_kind
from modernbert.processes import memory_bytes
from modernbert.reading import user_path

_REMEDY = "repair it or leave it out"
_HEAD_ROWS = 1000
_SPLITS = ("train", "dev", "test", "valid", "validation", "val", "eval")


def read_table(
    source: Any, settings: FileSettings | None = None, asked: Sequence[str] = ()
) -> Table:
    """Read all rows of a file, of a data set, or of an object of Python.

    Args:
        source: A path, the id of a data set, or an object; see above.
        settings: The encoding of text, and whether tables have a header.
        asked: The columns that will be asked for; numbers mean that there is no header.

    Raises:
        DocumentError: There is no such source, it cannot be read, or it has no rows.
    """
    if isinstance(source, str | Path):
        table = _read(str(source), settings or FileSettings(), asked)
    else:
        table = table_of_object(source)
    if not table.rows:
        raise DocumentError(f"{table.source}: has no rows")
    return table


def write_rows(source: Any, path: Path) -> None:
    """Write the rows of an object of Python as JSON Lines, for code that reads files.

    Args:
        source: The object; see `read_table`.
        path: The file, which may be there already with the same rows.

    Raises:
        DocumentError: It is no such object, has no rows, or a value that JSON has no form for.
        InputError: The file is there with other rows.
    """
    table = read_table(source)
    try:
        lines = [json.dumps(row, ensure_ascii=False, default=_as_json) for row in table.rows]
    except TypeError as error:
        raise DocumentError(f"{table.source}: {error}; give texts, numbers and lists") from None
    content = "".join(f"{line}\n" for line in lines).encode()
    if path.exists():
        if path.read_bytes() != content:
            raise InputError(f"{path}: holds other rows; name another output, or delete it")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        file.write(content)


def _as_json(value: Any) -> Any:
    """Return arrays and dates, as cells of frames contain them, as JSON values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"a cell holds {shown(value)}")


def head_of(source: str, settings: FileSettings, asked: Sequence[str] = ()) -> Table | None:
    """Return the first rows of a file, which show its columns; None if the source is no file.

    Args:
        source: A path, or the id of a data set.
        settings: The encoding of text, and whether tables have a header.
        asked: As in `read_table`.

    Raises:
        DocumentError: There is no such file, or these rows cannot be read.
    """
    path, _ = _path_and_split(source)
    if path.is_dir() or not (path.exists() or _must_be_path(path)):
        return None
    return _read_files(str(path), find_files([path]), settings, asked, most=_HEAD_ROWS)


def _must_be_path(path: Path) -> bool:
    """Return whether a name that is no path here cannot be a data set on the hub either."""
    name = str(path).partition("@")[0]
    return bool(Path(name).suffix) or not may_be_hub_id(name)


def _read(source: str, settings: FileSettings, asked: Sequence[str]) -> Table:
    path, split = _path_and_split(source)
    if path.is_dir():
        return _read_folder(path, split, settings)
    if path.exists() or _must_be_path(path):
        return _read_files(str(path), find_files([path]), settings, asked)
    return read_hub(str(path), split)


def _path_and_split(source: str) -> tuple[Path, str | None]:
    if Path(source).exists() or ":" not in source:
        return user_path(source), None
    name, _, split = source.rpartition(":")
    return user_path(name), split


def _read_files(
    source: str,
    files: Sequence[CorpusFile],
    settings: FileSettings,
    asked: Sequence[str] = (),
    most: int | None = None,
) -> Table:
    """Read the rows of files, one after the other, at most a number of each."""
    rules = RecordRules(skipped=Skipped(), strict=True, remedy=_REMEDY)
    rows: list[Row] = []
    columns: dict[str, None] = {}
    reading, room = None, _Room()
    for file in files:
        reading = Reading(file=file, rules=rules, texts="rows", settings=settings, asked=asked)
        for row in islice(rows_of(reading), most):
            room.take(row, source)
            rows.append(row)
            columns.update(dict.fromkeys(row.values))
    return Table(
        source=source,
        columns=tuple(columns),
        rows=[row.values for row in rows],
        facts=tuple(reading.facts) if reading else (),
        decimal_comma=bool(reading and reading.decimal_comma),
        has_header=bool(reading and reading.has_header),
    )


class _Room:
    """Counts the memory that rows take, as a small file can contain more than fits into it."""

    def __init__(self) -> None:
        self._most = memory_bytes() // 2
        self._left = self._most

    def take(self, row: Row, source: str) -> None:
        """Count one more row, or refuse it."""
        self._left -= sum(map(_num_bytes, row.values.values()))
        if self._left < 0:
            raise DocumentError(
                f"{source}: its rows take more than {self._most / 1e9:.1f} GB, half of this "
                "machine's memory; give fewer rows, or shorter texts"
            )


def _num_bytes(value: Any) -> int:
    """Estimate how much memory a value takes."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return 8 + sum(map(_num_bytes, value)) if isinstance(value, list) else 8


def _read_folder(folder: Path, split: str | None, settings: FileSettings) -> Table:
    """Read a data set as `save_to_disk` writes it, or folders of texts by their labels."""
    splits = sorted(each.name for each in folder.iterdir() if (each / "state.json").is_file())
    if splits:
        folder = folder / chosen_split(str(folder), split, splits)
    if (folder / "state.json").is_file():
        return _read_files(str(folder), find_files([folder]), settings)
    labels = _label_folders(folder)
    if split is not None or len(labels) < 2:
        raise DocumentError(
            f"{folder}: neither a dataset saved by `datasets` nor a folder of text files by label; "
            f"{_instead(folder)}"
        )
    rows = [row for label in labels for row in _labelled_texts(label, settings)]
    facts = ("the folder of each text is its label",)
    return Table(source=str(folder), columns=("text", "label"), rows=rows, facts=facts)


def _label_folders(folder: Path) -> list[Path]:
    """Return the folders inside, unless they are splits or the folder is a model or a run."""
    if find_kind(folder) is not None:
        return []
    found = sorted(each for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")
    return [] if any(each.name in _SPLITS for each in found) else found


def _instead(folder: Path) -> str:
    """Say what to name instead of a folder without rows."""
    if (kind := find_kind(folder)) is not None:
        return f"it holds {NAMES[kind]}"
    there = sorted(each for each in folder.iterdir() if each.name[0] != ".")
    usable = [each for each in there if each.is_file() or each.name in _SPLITS][:4]
    return f"name one of it, such as {', '.join(map(str, usable))}" if usable else "it is empty"


def _labelled_texts(folder: Path, settings: FileSettings) -> Iterator[dict[str, str]]:
    rules, room = RecordRules(skipped=Skipped(), strict=True, remedy=_REMEDY), _Room()
    for file in find_files([folder]):
        for row in rows_of(Reading(file=file, rules=rules, settings=settings)):
            room.take(row, str(folder))
            text = rules.text(row.values.get("text"), row.where)
            if text is not None:
                yield {"text": text, "label": folder.name}
