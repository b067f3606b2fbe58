"""Rows that would take more room than their file are divided, or skipped, before they are made."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modernbert.data.rows import column_sizes, tables
from modernbert.data.rows.column_sizes import pieces, row_bytes
from modernbert.data.rows.tables import read_table
from modernbert.errors import DocumentError

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")


def _repeated(count: int, text: str) -> Any:
    """One text that stands in many places."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([text]))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (_repeated(3, "a" * 100), [100, 100, 100]),
        (pa.array(["ab", None, "c"]), [2, 0, 1]),
        (pa.array(["ab", None, "c"]).slice(1), [0, 1]),
        (pa.array(["ab", "c" * 20], pa.string_view()), [2, 20]),
        (pa.array([["ab", "c"], None, ["d"]]), [8 + 3, 8, 8 + 1]),
        (pa.array([["ab", "c"], None, ["d"]]).slice(2), [8 + 1]),
        (pa.ListArray.from_arrays([0, 2, 3], _repeated(3, "a" * 100)), [8 + 200, 8 + 100]),
        (pa.array([["a", "bc"], ["d", "e"]], pa.list_(pa.string(), 2)).slice(1), [2]),
        (pa.array([{"x": "ab", "y": 1}, {"x": "c", "y": 2}]), [8 + 2 + 8, 8 + 1 + 8]),
        (pa.array([[("k", "value")], []], pa.map_(pa.string(), pa.string())), [8 + 8 + 6, 8]),
        (pa.array([["ab"] * 2, ["c"]], pa.list_view(pa.string())), [8 + 4, 8 + 1]),
        (pa.RunEndEncodedArray.from_arrays([2, 3], ["ab", "cde"]), [3, 3, 3]),
        (pa.array([1, 2, None]), [8, 8, 8]),
    ],
)
def test_bytes_of_rows(column: Any, expected: list[int]) -> None:
    assert row_bytes(column).tolist() == expected


def test_texts_at_any_depth_come_as_they_are(tmp_path: Path) -> None:
    rows = [
        {
            "list": ["a", "b", None],
            "lists": [["c"], []],
            "struct": {"x": "d", "y": ["e"]},
            "map": [("k", "v")],
            "pair": ["f", "g"],
            "text": "h",
        },
        # A pair in every row: pyarrow 18 writes a missing one and cannot read it back.
        {**dict.fromkeys(("list", "lists", "struct", "map", "text")), "pair": ["i", "j"]},
    ]
    text = pa.string()
    schema = pa.schema(
        {
            "list": pa.list_(text),
            "lists": pa.large_list(pa.list_(text)),
            "struct": pa.struct({"x": text, "y": pa.list_(text)}),
            "map": pa.map_(text, text),
            "pair": pa.list_(text, 2),
            "text": text,
        }
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "rows.parquet")
    assert list(read_table(tmp_path / "rows.parquet").rows) == rows


def test_pieces_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_sizes, "_PIECE_BYTES", 250)
    batch = pa.record_batch({"a": _repeated(7, "x" * 100), "b": pa.array(range(7))})
    found = [(piece.column("b").to_pylist(), size) for piece, size in pieces(batch)]
    assert [row for rows, _ in found for row in rows] == list(range(7))
    assert all(size <= 250 for _, size in found) and len(found) == 4


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_row_that_no_memory_holds(tmp_path: Path, suffix: str) -> None:
    """A list that names one text of 4 MB half a million times, in a file of a few kilobytes."""
    many = pa.ListArray.from_arrays([0, 1, 500_001], _repeated(500_001, "a" * (4 << 20)))
    table, path = pa.table({"text": ["a", "b"], "more": many}), tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path, compression="zstd")
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(DocumentError, match=r"row 2: a row of over 1 GB"):
        read_table(path)


def test_a_list_of_more_numbers_than_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_sizes, "_FEW_VALUES", 1000)
    values = pa.array(np.zeros(1_000_000, np.int8))
    table = pa.table({"text": ["a"], "more": pa.ListArray.from_arrays([0, len(values)], values)})
    pq.write_table(table, tmp_path / "rows.parquet", compression="zstd")
    with pytest.raises(DocumentError, match=r"too many values for its size \(more.list.element\)"):
        read_table(tmp_path / "rows.parquet")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.gz"])
def test_rows_that_no_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """A thousand rows of 1 MB in a small file: refused once half of the memory is full."""
    monkeypatch.setattr(tables, "memory_bytes", lambda: 40_000_000)
    path, text = tmp_path / f"rows{suffix}", "a" * 1_000_000
    if suffix == ".parquet":
        table = pa.table({"text": _repeated(1000, text), "label": ["x"] * 1000})
        pq.write_table(table, path, compression="zstd")
    else:
        path.write_bytes(gzip.compress(f'{{"text": "{text}", "label": "x"}}\n'.encode() * 100))
    with pytest.raises(DocumentError, match=r"take more than 0.0 GB, half of this"):
        read_table(path)
