""".npy files that grow and are cut back."""

from pathlib import Path

import numpy as np
import pytest

from modernbert.errors import InputError
from modernbert.inference.index_files import VectorFile, read_vectors


def rows(count: int, first: int = 0) -> np.ndarray:
    return np.arange(first * 3, (first + count) * 3, dtype=np.float32).reshape(-1, 3)


def test_a_complete_file_after_every_block(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    with VectorFile(path, 3) as file:
        for count in (1, 5, 0, 1000):
            done = file.num_rows
            file.append(rows(count, done))
            np.testing.assert_array_equal(np.load(path), rows(done + count))
    mapped = read_vectors(path)
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, rows(1006))


def test_cut_back_and_gone_on(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    with VectorFile(path, 3) as file:
        file.append(rows(10))
    with path.open("ab") as torn:
        torn.write(b"half a row")
    with VectorFile(path, 3, keep_rows=7) as file:
        file.append(rows(5, 7))
    np.testing.assert_array_equal(np.load(path), rows(12))
    header_bytes = path.stat().st_size - rows(12).nbytes
    with VectorFile(path, 3, keep_rows=7) as file:
        file.append(rows(1, 7))
    assert path.stat().st_size == header_bytes + rows(8).nbytes
    with pytest.raises(InputError, match="has 224 bytes, fewer than the 284 that were written"):
        VectorFile(path, 3, keep_rows=13)


def test_an_empty_file(tmp_path: Path) -> None:
    VectorFile(tmp_path / "v.npy", 3, np.int8).close()
    assert read_vectors(tmp_path / "v.npy").shape == (0, 3)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("no vectors")
    np.save(tmp_path / "flat.npy", np.zeros(3))
    for name, message in (
        ("none.npy", "No such file"),
        ("text.npy", "not a readable .npy file"),
        ("flat.npy", r"got an array \(3,\), expected \(rows, numbers\)"),
    ):
        with pytest.raises(InputError, match=message):
            read_vectors(tmp_path / name)
