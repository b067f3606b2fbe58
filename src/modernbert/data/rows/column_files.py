"""Rows of files in columns: Parquet and Arrow, and the labels that `datasets` keeps as numbers.

A file can refer to one long value in a million places: by its number in a dictionary, as a view of
other bytes, or as a run. A small file may then contain rows that fit into no memory, so their size
is known before they are written out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from modernbert.data.records import Reading, Row
from modernbert.data.rows.json_files import MAX_VALUE_BYTES
from modernbert.extras import import_extra

_ROWS = 256
_ARROW_FILE_MARK = b"ARROW1"

_BLOCK_ROWS = 4096
_PIECE_BYTES = 1 << 26
_PLAIN_BYTES = 8  # of a number, or of the reference to a value
_FEW_VALUES = 1 << 26
_VALUES_PER_BYTE = 1000


def read_parquet(reading: Reading) -> Iterator[Row]:
    """Yield the rows of a Parquet file, batch by batch.

    Texts are read as numbers of a dictionary, as the file may hold them: a long one that stands in
    a million rows, or in lists, takes its room once.
    """
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


def pieces(batch: Any) -> Iterator[tuple[Any, int]]:
    """Divide a batch into parts that take little room; a single row takes what it takes.

    Args:
        batch: A batch of an Arrow file, checked, or of a Parquet file.
    """
    for start in range(0, len(batch), _BLOCK_ROWS):
        block = batch.slice(start, _BLOCK_ROWS)
        sizes = sum((row_bytes(column) for column in block.columns), np.zeros(len(block)))
        first, total = 0, 0.0
        for row, size in enumerate(sizes.tolist()):
            if row > first and total + size > _PIECE_BYTES:
                yield block.slice(first, row - first), int(total)
                first, total = row, 0.0
            total += size
        yield block.slice(first), int(total)


def row_bytes(column: Any) -> np.ndarray:
    """Return the bytes of each row of a column once written out, (num_rows,) float64."""
    arrow = import_extra("pyarrow")
    types, kind = arrow.types, column.type
    if types.is_dictionary(kind):
        indices = column.indices.fill_null(0).to_numpy(zero_copy_only=False)
        inner = row_bytes(column.dictionary)
        return inner[indices] if len(inner) else np.zeros(len(column))
    if types.is_struct(kind):
        parts = (row_bytes(column.field(place)) for place in range(kind.num_fields))
        return sum(parts, np.full(len(column), _PLAIN_BYTES))
    if types.is_map(kind) or types.is_list(kind) or types.is_large_list(kind):
        return _between(row_bytes(column.values), _numbers(column.offsets))
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        starts = _numbers(column.offsets)
        ends = starts + _numbers(column.sizes)
        return _between(row_bytes(column.values), np.stack((starts, ends), 1))
    if types.is_fixed_size_list(kind):
        size = kind.list_size
        inner = row_bytes(column.values.slice(column.offset * size, len(column) * size))
        return inner.reshape(-1, size).sum(1) if size else np.zeros(len(column))
    if types.is_run_end_encoded(kind):
        return np.full(len(column), row_bytes(column.values).max(initial=0))
    return _text_bytes(column)


def without_dictionaries(kind: Any) -> Any:
    """Return a column's type with its values written out at any depth, which is faster to read."""
    arrow = import_extra("pyarrow")
    types = arrow.types
    if types.is_dictionary(kind):
        return kind.value_type
    if types.is_struct(kind):
        fields = (kind.field(place) for place in range(kind.num_fields))
        return arrow.struct([(each.name, without_dictionaries(each.type)) for each in fields])
    if types.is_map(kind):
        return arrow.map_(*map(without_dictionaries, (kind.key_type, kind.item_type)))
    if types.is_list(kind):
        return arrow.list_(without_dictionaries(kind.value_type))
    if types.is_large_list(kind):
        return arrow.large_list(without_dictionaries(kind.value_type))
    if types.is_fixed_size_list(kind):
        return arrow.list_(without_dictionaries(kind.value_type), kind.list_size)
    return kind


def _between(inner: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the sum of the sizes of each row, between its begin and its end."""
    sums = np.concatenate(([0.0], np.cumsum(inner)))
    found: np.ndarray
    found = np.diff(sums[offsets]) if offsets.ndim == 1 else np.diff(sums[offsets], axis=1)[:, 0]
    return found + _PLAIN_BYTES


def _text_bytes(column: Any) -> np.ndarray:
    """Return the bytes of texts; anything else counts as a number."""
    arrow = import_extra("pyarrow")
    types, kind = arrow.types, column.type
    if types.is_string_view(kind) or types.is_binary_view(kind):
        views = np.frombuffer(column.buffers()[1], np.int32).reshape(-1, 4)
        return views[column.offset : column.offset + len(column), 0].astype(float)
    is_text = (types.is_string, types.is_binary, types.is_large_string, types.is_large_binary)
    if not any(each(kind) for each in is_text):
        return np.full(len(column), float(_PLAIN_BYTES))
    return _numbers(import_extra("pyarrow.compute").binary_length(column)).astype(float)


def _numbers(array: Any) -> np.ndarray:
    """Return an array of numbers, with 0 for missing ones."""
    numbers: np.ndarray = array.fill_null(0).to_numpy(zero_copy_only=False)
    return numbers


def repeated_beyond_reason(metadata: Any) -> str | None:
    """Find a column of lists in a Parquet file whose values take a thousandth of a byte each.

    A row of lists is read as a whole, so a billion values of one row would be.

    Args:
        metadata: A `pyarrow.parquet.FileMetaData`.
    """
    nested = [
        place
        for place in range(metadata.num_columns)
        if metadata.schema.column(place).max_repetition_level
    ]
    for group in map(metadata.row_group, range(metadata.num_row_groups) if nested else ()):
        for chunk in map(group.column, nested):
            most = max(_FEW_VALUES, _VALUES_PER_BYTE * chunk.total_compressed_size)
            if chunk.num_values > most:
                return str(chunk.path_in_schema)
    return None
