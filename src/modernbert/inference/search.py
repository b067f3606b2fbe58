"""`SearchIndex`: the nearest of many vectors, found by looking at all of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from modernbert.errors import InputError
from modernbert.inference.codes import scores_of_bits, scores_of_int8, to_bits
from modernbert.inference.id_file import IdReader
from modernbert.inference.index_folder import IndexKind, IndexManifest, build_index, unit
from modernbert.inference.vector_file import read_vectors

__all__ = ["Hit", "IndexManifest", "SearchIndex", "build_index"]

_BLOCK_ROWS = 16_384
_BLOCK_QUERIES = 256
_OVERSAMPLE: dict[IndexKind, int] = {"float32": 1, "int8": 4, "binary": 16}


@dataclass(frozen=True)
class Hit:
    """One vector that was found.

    id: what it was given, or its number.
    row: its number in the index, from 0.
    score: the cosine or the dot product, by the float32 vectors.
    """

    id: str
    row: int
    score: float


class SearchIndex:
    """An index on the disk, memory-mapped: it may be larger than the memory.

    Make one with `build_index`, open it with `SearchIndex.open`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = IndexManifest.read(folder)
        names = {"float32": (), "int8": ("int8", "scales"), "binary": ("binary",)}
        kept = ("float32", *names[self.manifest.kind])
        self._rows = {name: read_vectors(folder / f"{name}.npy") for name in kept}
        self._ids = IdReader(folder, self.manifest.count)
        for name, rows in self._rows.items():
            if len(rows) != self.manifest.count:
                raise InputError(
                    f"{folder / name}.npy: got {len(rows)} rows, expected {self.manifest.count}; "
                    "build the index anew"
                )

    @classmethod
    def open(cls, folder: Path | str) -> "SearchIndex":
        """Open an index.

        Raises:
            InputError: no index there, or one whose files do not fit each other.
        """
        return cls(Path(folder).expanduser())

    def __len__(self) -> int:
        return self.manifest.count

    def search(
        self, queries: np.ndarray, top_k: int = 10, *, oversample: int | None = None
    ) -> list[list[Hit]]:
        """The best for each query, best first.

        queries: (num_queries, dim), or (dim,) for one; still a list of lists is returned.
        top_k: how many; all when there are fewer.
        oversample: of an int8 or binary index, how many times top_k are scored again by float32;
            4 and 16 when None.

        Raises:
            InputError: queries of another dimension, or a top_k or oversample below 1.
        """
        wanted = self._checked(np.atleast_2d(np.asarray(queries, np.float32)))
        oversample = _OVERSAMPLE[self.manifest.kind] if oversample is None else oversample
        for name, value in (("top_k", top_k), ("oversample", oversample)):
            if value < 1:
                raise InputError(f"{name}: got {value}, expected 1 or more")
        blocks = (
            wanted[start : start + _BLOCK_QUERIES]
            for start in range(0, len(wanted), _BLOCK_QUERIES)
        )
        return [
            as_hits(self._ids, scores, rows)
            for block in blocks
            for scores, rows in self._best(block, top_k, oversample)
        ]

    def _checked(self, queries: np.ndarray) -> np.ndarray:
        if queries.ndim != 2 or queries.shape[1] != self.manifest.dim:
            raise InputError(
                f"queries: got {queries.shape}, expected (num_queries, {self.manifest.dim})"
            )
        if not np.isfinite(queries).all():
            raise InputError("queries: got a number that is not finite")
        return unit(queries) if self.manifest.similarity == "cosine" else queries

    def _best(
        self, queries: np.ndarray, top_k: int, oversample: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Scores and rows of the best for each query, best first; among equals the first row."""
        is_final = self.manifest.kind == "float32"
        rows = self._candidates(queries, top_k * (1 if is_final else oversample))
        for query, found in zip(queries, rows, strict=True):
            found = np.sort(found)
            scores = self._rows["float32"][found] @ query
            order = np.argsort(-scores, kind="stable")[:top_k]
            yield scores[order], found[order]

    def _candidates(self, queries: np.ndarray, num: int) -> np.ndarray:
        """(num_queries, num) int64: the rows of the best, in any order."""
        best = Best(len(queries), num)
        for start in range(0, len(self), _BLOCK_ROWS):
            best.add(self._scores(queries, slice(start, start + _BLOCK_ROWS)), start)
        return best.rows

    def _scores(self, queries: np.ndarray, block: slice) -> np.ndarray:
        """(num_queries, rows of the block) float32, by the vectors that are searched in."""
        if self.manifest.kind == "int8":
            return scores_of_int8(queries, self._rows["int8"][block], self._rows["scales"][block])
        if self.manifest.kind == "binary":
            return scores_of_bits(to_bits(queries), self._rows["binary"][block])
        scores: np.ndarray = queries @ self._rows["float32"][block].T
        return scores


def as_hits(ids: IdReader, scores: np.ndarray, rows: np.ndarray) -> list[Hit]:
    """The hits of one query, from the scores and rows of the best."""
    names = ids.names(rows.tolist())
    triples = zip(names, rows.tolist(), scores.tolist(), strict=True)
    return [Hit(name, row, score) for name, row, score in triples]


class Best:
    """The best rows for each query so far, while blocks of rows are scored one after another.

    num: how many are kept.
    """

    def __init__(self, num_queries: int, num: int) -> None:
        self.num = num
        self._scores = torch.empty(num_queries, 0)
        self._rows = torch.empty(num_queries, 0, dtype=torch.int64)

    def add(self, scores: np.ndarray, first_row: int) -> None:
        """Take the scores (num_queries, rows) float32 of rows from `first_row` on."""
        found = torch.arange(first_row, first_row + scores.shape[1]).expand(len(scores), -1)
        joined = torch.cat([self._scores, torch.from_numpy(scores)], 1)
        rows = torch.cat([self._rows, found], 1)
        self._scores, places = joined.topk(min(self.num, joined.shape[1]), dim=1)
        self._rows = rows.gather(1, places)

    @property
    def rows(self) -> np.ndarray:
        """(num_queries, num) int64, in any order."""
        return self._rows.numpy()

    def ordered(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Scores and rows for each query, best first; among equals the first row."""
        for scores, rows in zip(self._scores.numpy(), self._rows.numpy(), strict=True):
            order = np.lexsort((rows, -scores))
            yield scores[order], rows[order]
