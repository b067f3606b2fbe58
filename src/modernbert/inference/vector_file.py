""".npy files that grow row by row, can be cut back, and are memory-mapped when they are read."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.lib import format as npy

from modernbert.errors import InputError


class VectorFile:
    """Appends blocks of rows to a .npy file; between blocks it is a complete one.

    path: the file; it is created, or with `keep_rows` cut back to its first rows.
    dim: the numbers of a row.
    keep_rows: how many rows of a file that is there are kept.

    Raises:
        InputError: fewer rows in the file than are to be kept.
    """

    def __init__(
        self, path: Path, dim: int, dtype: Any = np.float32, *, keep_rows: int = 0
    ) -> None:
        self.dim, self.dtype = dim, np.dtype(dtype)
        self.num_rows = keep_rows
        self._file = path.open("r+b" if keep_rows else "w+b")
        self._write_header()
        end = self._file.tell() + keep_rows * dim * self.dtype.itemsize
        if self._file.seek(0, 2) < end:
            self._file.close()
            raise InputError(f"{path}: holds fewer than {keep_rows} vectors; delete it")
        self._file.truncate(end)
        self._file.seek(end)

    def append(self, rows: np.ndarray) -> None:
        """Add rows (n, dim), and make the header say so."""
        assert rows.ndim == 2 and rows.shape[1] == self.dim
        self._file.write(np.ascontiguousarray(rows, self.dtype).data)
        self.num_rows += len(rows)
        end = self._file.tell()
        self._write_header()
        self._file.seek(end)
        self._file.flush()

    def sync(self) -> None:
        """Make what was appended durable."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Give the file free."""
        self._file.close()

    def _write_header(self) -> None:
        # NumPy leaves room in the header for a larger number of rows, so that it keeps its length.
        self._file.seek(0)
        described = npy.dtype_to_descr(self.dtype)
        shape = (self.num_rows, self.dim)
        header = {"descr": described, "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self._file, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_vectors(path: Path) -> np.ndarray:
    """The rows of a .npy file, (n, dim), memory-mapped and read-only.

    Raises:
        InputError: no such file, or something else in it.
    """
    try:
        # An empty file cannot be mapped.
        with path.open("rb") as file:
            version = npy.read_magic(file)
            shape = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(
                file
            )[0]
        vectors: np.ndarray = np.load(path, mmap_mode="r" if 0 not in shape else None)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable .npy file: {error}") from None
    if vectors.ndim != 2:
        raise InputError(f"{path}: got an array {vectors.shape}, expected (rows, numbers)")
    return vectors
