"""How much memory the rows of columns will take, known before they are written out.

A file can refer to one long value in a million places: by its number in a dictionary, as a view of
other bytes, or as a run. A small file may then contain rows that fit into no memory.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from modernbert.extras import import_extra

_ROWS = 4096
_PIECE_BYTES = 1 << 26
_PLAIN_BYTES = 8  # of a number, or of the reference to a value
_FEW_VALUES = 1 << 26
_VALUES_PER_BYTE = 1000


def pieces(batch: Any) -> Iterator[tuple[Any, int]]:
    """Divide a batch into parts that take little room; a single row takes what it takes.

    Args:
        batch: A batch of an Arrow file, checked, or of a Parquet file.
    """
    for start in range(0, len(batch), _ROWS):
        block = batch.slice(start, _ROWS)
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
