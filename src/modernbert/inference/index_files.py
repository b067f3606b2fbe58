"""The files of an index: vectors row by row, in fewer bytes too, and lines of JSON beside them."""

import hashlib
import io
import json
import mmap
import os
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from modernbert.errors import InputError

_WORD_BITS = 64
_PIECE_BYTES = 1 << 20


def to_int8(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round numbers to -127 to 127, and return what 1 stands for in each row.

    >>> codes, scales = to_int8(np.array([[0.5, -1.0, 0.0]], np.float32))
    >>> codes.tolist(), round(1 / float(scales[0, 0]))
    ([[64, -127, 0]], 127)

    Args:
        vectors: (n, dim) float32.

    Returns:
        (n, dim) int8 and (n, 1) float32.
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    scales = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(127)
    return np.rint(vectors / scales).astype(np.int8), scales


def to_bits(vectors: np.ndarray) -> np.ndarray:
    """Return the signs of the numbers, 1 for those above 0, in words of 64 bits.

    Args:
        vectors: (n, dim) float32.

    Returns:
        (n, ceil(dim / 64)) uint64.
    """
    padding = -vectors.shape[1] % _WORD_BITS
    signs = np.pad(vectors > 0, ((0, 0), (0, padding)))
    return np.packbits(signs, axis=1).view(np.uint64)


def scores_of_bits(query_bits: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Return how many bits differ, negative: (m, n) float32.

    Args:
        query_bits: (m, words) uint64.
        bits: (n, words) uint64.
    """
    scores = np.empty((len(query_bits), len(bits)), np.float32)
    for query, row in zip(query_bits, scores, strict=True):
        np.negative(count_bits(bits ^ query), out=row)
    return scores


def count_bits(words: np.ndarray) -> np.ndarray:
    """Return how many bits of each row are set: (n,) float32.

    >>> count_bits(np.array([[0, 1], [7, 2**63]], np.uint64)).tolist()
    [1.0, 4.0]

    Args:
        words: (n, words) uint64.
    """
    sums: np.ndarray = np.bitwise_count(words).sum(axis=1, dtype=np.float32)
    return sums


class GrowingFile:
    """Appends bytes to a file; a context that closes it.

    Args:
        path: The file; it is made, or cut back to the bytes that are kept.
        keep_bytes: How many bytes of a file that is there are kept.
        unhashed_bytes: How many bytes at its beginning are not part of the hash.

    Raises:
        InputError: The file has fewer bytes than are to be kept.
    """

    def __init__(self, path: Path, keep_bytes: int = 0, *, unhashed_bytes: int = 0) -> None:
        self.path = path
        try:
            self.file = path.open("r+b" if keep_bytes else "w+b")
        except FileNotFoundError:
            raise InputError(f"{path}: is missing") from None
        size = self.file.seek(0, os.SEEK_END)
        if size < keep_bytes:
            self.file.close()
            raise InputError(
                f"{path}: has {size:,} bytes, fewer than the {keep_bytes:,} that were written"
            )
        self.file.truncate(keep_bytes)
        self._digest = hashlib.sha256()
        self.file.seek(unhashed_bytes)
        while piece := self.file.read(_PIECE_BYTES):
            self._digest.update(piece)
        self.num_bytes = self.file.seek(keep_bytes)

    @property
    def sha256(self) -> str:
        """Of all that counts in the file."""
        return self._digest.hexdigest()

    def append(self, content: bytes | memoryview) -> None:
        """Add bytes at the end."""
        self.file.write(content)
        self._digest.update(content)
        self.num_bytes += len(content)

    def sync(self) -> None:
        """Make what was appended durable."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Give the file free."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class VectorFile(GrowingFile):
    """Appends blocks of rows to a .npy file; between blocks it is a complete one.

    Args:
        path: The file; it is made, or with `keep_rows` cut back to its first rows.
        dim: How many numbers a row has.
        dtype: Of the numbers.
        keep_rows: How many rows of a file that is there are kept.

    Raises:
        InputError: The file has fewer rows than are to be kept.
    """

    def __init__(
        self, path: Path, dim: int, dtype: Any = np.float32, *, keep_rows: int = 0
    ) -> None:
        self.dim, self.dtype, self.num_rows = dim, np.dtype(dtype), keep_rows
        begin = len(self._header())
        end = begin + keep_rows * dim * self.dtype.itemsize if keep_rows else 0
        super().__init__(path, end, unhashed_bytes=begin)
        self._write_header()

    def append(self, rows: np.ndarray) -> None:  # type: ignore[override]
        """Add rows (n, dim), and make the header say so."""
        assert rows.ndim == 2 and rows.shape[1] == self.dim
        super().append(np.ascontiguousarray(rows, self.dtype).reshape(-1).view(np.uint8).data)
        self.num_rows += len(rows)
        self._write_header()

    def _header(self) -> bytes:
        # NumPy leaves room in the header for a larger number of rows, so that it keeps its length.
        described = npy.dtype_to_descr(self.dtype)
        shape = (self.num_rows, self.dim)
        written = io.BytesIO()
        npy.write_array_header_1_0(
            written, {"descr": described, "fortran_order": False, "shape": shape}
        )
        return written.getvalue()

    def _write_header(self) -> None:
        self.file.seek(0)
        self.file.write(self._header())
        self.file.seek(0, os.SEEK_END)
        self.file.flush()


def to_tensor(vectors: np.ndarray) -> Tensor:
    """Return a tensor of the same memory, which nobody may write."""
    with warnings.catch_warnings():  # that a mapped file cannot be written
        warnings.simplefilter("ignore")
        return torch.from_numpy(np.asarray(vectors))


def read_vectors(path: Path) -> np.ndarray:
    """Return the rows of a .npy file, (n, dim), memory-mapped and read-only.

    Raises:
        InputError: No such file, or something else in it.
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


class LineWriter:
    """Writes a line of JSON for each row, such as an id or a text, or none for any.

    Args:
        folder: Of the index.
        values: One for each row, read as they are written.
        name: What they are: `ids`, `texts` or `fields`.
    """

    def __init__(self, folder: Path, values: Iterable[Any] | None, name: str = "ids") -> None:
        self._values = None if values is None else iter(values)
        self._name = name
        self._file = (folder / f"{name}.jsonl").open("wb")
        self._places = VectorFile(folder / f"{name}.npy", 1, np.int64)
        self.num_rows = 0

    def take(self, count: int) -> None:
        """Write the values of the next rows.

        Raises:
            InputError: Fewer are left.
        """
        self.num_rows += count
        if self._values is None:
            return
        given = list(islice(self._values, count))
        if len(given) < count:
            got = self.num_rows - count + len(given)
            raise InputError(
                f"{self._name}: got {got}, fewer than there are vectors; give one for each"
            )
        lines = list(map(line_of, given))
        begins = self._file.tell() + np.cumsum([0, *map(len, lines[:-1])])
        self._places.append(begins[:, None])
        self._file.writelines(lines)

    def finish(self) -> None:
        """Check that none is left.

        Raises:
            InputError: One is.
        """
        if self._values is not None and next(self._values, None) is not None:
            raise InputError(
                f"{self._name}: got more than the {self.num_rows} vectors; give one for each"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._places.close()


class LineReader:
    """The values of some rows, as `LineWriter` wrote them.

    Args:
        folder: Of the index.
        num_rows: How many rows it has.
        name: What they are: `ids`, `texts` or `fields`.

    Raises:
        InputError: Files that cannot be read, of another number of rows, or whose places are not
            those of lines.
    """

    def __init__(self, folder: Path, num_rows: int, name: str = "ids") -> None:
        self._path = folder / f"{name}.jsonl"
        self._places_path = folder / f"{name}.npy"
        places = read_vectors(self._places_path)[:, 0]
        if len(places) not in (0, num_rows):
            raise InputError(
                f"{self._places_path}: got {len(places)} rows, expected {num_rows}; "
                "build the index anew"
            )
        self._lines = _mapped(self._path)
        ends = np.append(places, len(self._lines))
        if places.dtype != np.int64 or (len(places) and places[0]) or (np.diff(ends) <= 0).any():
            raise InputError(
                f"{self._places_path}: does not say where the lines of {self._path.name} begin; "
                "build the index anew"
            )
        self._ends = ends

    def __bool__(self) -> bool:
        return len(self._ends) > 1

    def of(self, rows: Iterable[int]) -> list[Any] | None:
        """Return the value of each row; None where no row has one.

        Raises:
            InputError: A line that holds none.
        """
        if not self:
            return None
        return [self._value(row) for row in rows]

    def __iter__(self) -> Iterator[Any]:
        """All values in their order."""
        return (self._value(row) for row in range(len(self._ends) - 1))

    def rows_of(self, values: Iterable[Any]) -> np.ndarray:
        """Find the rows that have one of some values: (n,) int64."""
        wanted = set(map(line_of, values))
        borders = zip(self._ends[:-1].tolist(), self._ends[1:].tolist(), strict=True)
        found = (self._lines[begin:end] in wanted for begin, end in borders)
        return np.flatnonzero(np.fromiter(found, bool, len(self._ends) - 1))

    def _value(self, row: int) -> Any:
        begin, end = self._ends[row : row + 2].tolist()
        try:
            return json.loads(self._lines[begin:end])
        except (ValueError, RecursionError):
            raise InputError(
                f"{self._path}: line {row + 1} holds no {self._path.stem.rstrip('s')}; build the "
                "index anew"
            ) from None


def _mapped(path: Path) -> mmap.mmap | bytes:
    """The content of a file, which stays the same when another takes the file's place.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            is_empty = not os.fstat(file.fileno()).st_size  # and cannot be mapped
            return b"" if is_empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def line_of(value: Any) -> bytes:
    """Return a value as a line of JSON."""
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
