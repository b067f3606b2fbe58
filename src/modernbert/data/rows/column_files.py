"""Rows of files in columns: Parquet and Arrow, and the labels that `datasets` keeps as numbers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modernbert.data.records import Reading, Row
from modernbert.data.rows.json_files import MAX_VALUE_BYTES
from modernbert.extras import import_extra

_ROWS = 256
_ARROW_FILE_MARK = b"ARROW1"


def read_parquet(reading: Reading) -> Iterator[Row]:
    """Yield the rows of a Parquet file, batch by batch.

    Texts are read as numbers of a dictionary, as the file may hold them: a long one that stands in
    a million rows, or in lists, takes its room once.
    """
    from modernbert.data.rows.column_sizes import repeated_beyond_reason

    parquet = import_extra("pyarrow.parquet")
    path = reading.file.path
    columns = parquet.read_metadata(path).schema
    each_column = map(columns.column, range(len(columns)))
    texts = [each.path for each in each_column if each.physical_type == "BYTE_ARRAY"]
    with parquet.ParquetFile(
        path, pre_buffer=False, read_dictionary=texts, page_checksum_verification=True
    ) as file:
        if (column := repeated_beyond_reason(file.metadata)) is not None:
            reading.rules.skip(path, "too many values for its size", detail=column)
            return
        schema = file.schema_arrow
        if not (names := reading.choose(schema.names)):
            return
        num_rows = 0
        for batch in file.iter_batches(batch_size=_ROWS, columns=names):
            yield from _rows(batch, names, class_names(schema.metadata), num_rows, reading)
            num_rows += len(batch)
            reading.bytes_done = reading.file.num_bytes * num_rows // file.metadata.num_rows
        if num_rows == 0:
            reading.rules.skip(reading.file.path, "empty")


def read_arrow(reading: Reading) -> Iterator[Row]:
    """Yield the rows of an Arrow file, as the `datasets` library saves it or with a footer."""
    # A stream is read, not mapped: mapped pages of a large file would count as our memory.
    with import_extra("pyarrow").OSFile(reading.file.path) as opened:
        batches = _arrow_batches(opened)
        if not (names := reading.choose(batches.schema.names)):
            return
        num_rows = 0
        for batch in _each_batch(batches):
            # Offsets of a stranger's file may point anywhere, and reading there ends the process.
            batch.validate(full=True)
            yield from _rows(batch, names, class_names(batches.schema.metadata), num_rows, reading)
            num_rows += len(batch)
            reading.bytes_done = opened.tell()
        if num_rows == 0:
            reading.rules.skip(reading.file.path, "empty")


def class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, Sequence[str]]:
    """Return the label names of each column of label numbers, as `datasets` stores them."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return names_of_features(features)


def names_of_features(features: Any) -> dict[str, Sequence[str]]:
    """Return the same from the features of a data set, as a dictionary."""
    found = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        if (names := _class_names(feature)) is not None:
            found[column] = names
    return found


def named_values(values: list[Any], names: Sequence[str] | None) -> list[Any]:
    """Return the values of a column, with label numbers replaced by names; -1 is no label."""
    return values if names is None else [_named(value, names) for value in values]


def _rows(
    batch: Any, names: Sequence[str], labels: Mapping[str, Sequence[str]], first: int, reading: Any
) -> Iterator[Row]:
    from modernbert.data.rows.column_sizes import pieces  # imports numpy

    path = reading.file.path
    for piece, num_bytes in pieces(batch.select(names)):
        if num_bytes > MAX_VALUE_BYTES:
            where = f"{path}, row {first + 1}"
            reading.rules.skip(where, f"a row of over {MAX_VALUE_BYTES >> 30} GB")
        else:
            columns = [
                named_values(_values(piece.column(name)), labels.get(name)) for name in names
            ]
            for index, values in enumerate(zip(*columns, strict=True), start=first):
                yield Row(dict(zip(names, values, strict=True)), index, f"{path}, row {index + 1}")
        first += len(piece)


def _arrow_batches(opened: Any) -> Any:
    ipc = import_extra("pyarrow.ipc")
    mark = opened.read(len(_ARROW_FILE_MARK))
    opened.seek(0)
    return ipc.open_file(opened) if mark == _ARROW_FILE_MARK else ipc.open_stream(opened)


def _each_batch(batches: Any) -> Iterator[Any]:
    if hasattr(batches, "get_batch"):
        return (batches.get_batch(number) for number in range(batches.num_record_batches))
    return iter(batches)


def _values(column: Any) -> list[Any]:
    """Return the values of a column, as bytes if a text is not UTF-8."""
    from modernbert.data.rows.column_sizes import without_dictionaries

    if (kind := without_dictionaries(column.type)) != column.type:
        # A slice of lists refers to the values of all rows, and all would be written out.
        column = column.take(import_extra("pyarrow").array(range(len(column)))).cast(kind)
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = column.cast(import_extra("pyarrow").large_binary()).to_pylist()
    return values


def _class_names(feature: Any) -> Sequence[str] | None:
    """Return the label names of a column of class labels, or of lists of them."""
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    while isinstance(feature, dict) and "feature" in feature:
        feature = feature["feature"]
    is_label = isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    return feature["names"] if is_label else None


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None
