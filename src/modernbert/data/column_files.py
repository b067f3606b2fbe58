"""Documents of Parquet and Arrow files: one a row, from the column of the text."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from modernbert.data.records import Document, Reading

_ROWS = 256
_ARROW_FILE_MARK = b"ARROW1"


def read_parquet(reading: Reading) -> Iterator[Document]:
    """The text column of a Parquet file, batch by batch."""
    parquet = _module("pyarrow.parquet")
    field = reading.rules.text_field
    with parquet.ParquetFile(reading.file.path, pre_buffer=False) as file:
        if not _has_text(file.schema_arrow, reading):
            return
        num_rows = 0
        for batch in file.iter_batches(batch_size=_ROWS, columns=[field]):
            yield from _documents(batch.column(field), num_rows, reading)
            num_rows += len(batch)
            reading.bytes_done = reading.file.num_bytes * num_rows // file.metadata.num_rows
        if num_rows == 0:
            reading.rules.skip(reading.file.path, "empty")


def read_arrow(reading: Reading) -> Iterator[Document]:
    """The text column of an Arrow file, as the `datasets` library saves it or with a footer."""
    field = reading.rules.text_field
    # A stream is read, not mapped: mapped pages of a large file would count as our memory.
    with _module("pyarrow").OSFile(reading.file.path) as opened:
        batches = _arrow_batches(opened)
        if not _has_text(batches.schema, reading):
            return
        num_rows = 0
        for batch in _each_batch(batches):
            yield from _documents(batch.column(field), num_rows, reading)
            num_rows += len(batch)
            reading.bytes_done = opened.tell()
        if num_rows == 0:
            reading.rules.skip(reading.file.path, "empty")


def _arrow_batches(opened: Any) -> Any:
    ipc = _module("pyarrow.ipc")
    mark = opened.read(len(_ARROW_FILE_MARK))
    opened.seek(0)
    return ipc.open_file(opened) if mark == _ARROW_FILE_MARK else ipc.open_stream(opened)


def _each_batch(batches: Any) -> Iterator[Any]:
    if hasattr(batches, "get_batch"):
        return (batches.get_batch(number) for number in range(batches.num_record_batches))
    return iter(batches)


def _has_text(schema: Any, reading: Reading) -> bool:
    """Whether the column of the text is there; a file without it is skipped."""
    names = [str(name) for name in schema.names]
    if names.count(reading.rules.text_field) == 1:
        return True
    reading.rules.skip(
        reading.file.path,
        f"no column {reading.rules.text_field!r}",
        detail=f"columns are {', '.join(names)}",
    )
    return False


def _documents(column: Any, first: int, reading: Reading) -> Iterator[Document]:
    path, rules = reading.file.path, reading.rules
    for index, value in enumerate(_values(column), start=first):
        text = rules.text(value, f"{path}, row {index + 1}")
        if text is not None:
            yield Document(text, path, index)


def _values(column: Any) -> list[Any]:
    """The values of a column; as bytes where a text is no UTF-8."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = column.cast(_module("pyarrow").large_binary()).to_pylist()
    return values


def _module(name: str) -> Any:
    """A part of pyarrow, which is imported late, since it is large, and has no types."""
    return import_module(name)
