"""`Segment`: the documents of one folder of an index, and the best of them for a query."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modernbert.errors import InputError
from modernbert.extras import is_installed
from modernbert.inference.bm25 import Bm25
from modernbert.inference.index_encodings import FILES as ENCODING_FILES
from modernbert.inference.index_encodings import Encodings
from modernbert.inference.index_files import (
    LineReader,
    read_vectors,
    scores_of_bits,
    to_bits,
    to_tensor,
)
from modernbert.inference.index_folder import Block, IndexKind, IndexManifest, shape_of
from modernbert.inference.similarity import Best, reduced, runs
from modernbert.model.native.functions import max_sim

_BLOCK_VECTORS = 16_384
OVERSAMPLE: dict[IndexKind, int] = {"int8": 4, "binary": 16}
OVERSAMPLE_OF_ENCODINGS = 384
Found = tuple[np.ndarray, np.ndarray]
"""Scores, (n,) float32, and rows, (n,) int64, best first."""


class Segment:
    """Documents on disk, mapped into memory, so they may be larger than the memory.

    Args:
        folder: As `build_index` has written it.
        dead: (count,) bool, which documents count no more; None if all do.

    Raises:
        InputError: There are no such files, or they do not fit each other.
    """

    def __init__(self, folder: Path, dead: np.ndarray | None = None) -> None:
        self.folder, self.dead = folder, dead
        self.manifest = IndexManifest.read(folder)
        self.manifest.check_sizes(folder)
        kind, is_ragged = self.manifest.kind, self.manifest.is_ragged
        self._exact = self._read("vectors" if is_ragged else "float32")
        has_codes = kind in OVERSAMPLE and not is_ragged
        self._coarse = self._read(kind) if has_codes else self._exact
        self._scales = self._read("scales") if kind == "int8" else None
        self._borders = self._read_borders() if is_ragged else None
        self._encodings = None
        if self.manifest.clusters and (folder / f"{ENCODING_FILES[-1]}.npy").exists():
            self._encodings = Encodings(folder, len(self), self.manifest.dim)
        self.ids = LineReader(folder, len(self))
        self.texts, self.fields = self._lines("texts"), self._lines("fields")
        self._bm25 = None
        if self.manifest.bm25 and is_installed("bm25s"):  # now, as a change may remove the files
            self._bm25 = Bm25.open(folder / "bm25", self.manifest.bm25)

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def num_alive(self) -> int:
        """How many documents count."""
        return len(self) - (0 if self.dead is None else int(self.dead.sum()))

    @property
    def field_names(self) -> tuple[str, ...]:
        """The names of the fields that are kept of each document."""
        (first,) = (self.fields and self.fields.of([0])) or [{}]
        return tuple(first)

    @property
    def bm25(self) -> Bm25:
        """The words of the texts.

        Raises:
            InputError: They are not indexed, or bm25s or PyStemmer is not installed.
        """
        if not self.manifest.bm25:
            raise InputError(f"{self.folder}: was built without BM25; build it anew with it")
        return self._bm25 or Bm25.open(self.folder / "bm25", self.manifest.bm25)

    def search(
        self, queries: Sequence[np.ndarray], top_k: int, oversample: int | None
    ) -> Iterator[Found]:
        """Yield the documents that are most like each query.

        Args:
            queries: (num_vectors, dim) float32 each.
            top_k: How many documents.
            oversample: See `Index.search`.
        """
        num_candidates = top_k * (oversample or OVERSAMPLE_OF_ENCODINGS)
        if self._encodings is not None and num_candidates < len(self):
            for query in queries:
                near = self._encodings.nearest(query, num_candidates, self.dead)
                yield self._compared(query, near, top_k)
            return
        again = self._coarse is not self._exact
        factor = (oversample or OVERSAMPLE[self.manifest.kind]) if again else 1
        best = Best(len(queries), top_k * factor)
        for rows in self._blocks():
            scores = self._scores(queries, rows)
            if self.dead is not None:
                scores[:, self.dead[rows]] = -np.inf
            best.add(scores, rows.start)
        for query, (scores, numbers) in zip(queries, best.ordered(), strict=True):
            found = numbers[scores > -np.inf]
            yield self._rescored(query, found, top_k) if again else (scores[: len(found)], found)

    def alive(self) -> Iterator[tuple[slice, np.ndarray, Block]]:
        """Yield the documents that count, in blocks: where, which of them, and their vectors."""
        for rows in self._blocks():
            keep = np.ones(rows.stop - rows.start, bool)
            if self.dead is not None:
                keep = ~self.dead[rows]
            if not keep.any():
                continue
            if self._borders is None:
                yield rows, keep, self._exact[rows][keep]
                continue
            numbers = np.flatnonzero(keep) + rows.start
            yield rows, keep, [self._vectors(slice(*self._borders[n : n + 2])) for n in numbers]

    def _lines(self, name: str) -> LineReader | None:
        there = (self.folder / f"{name}.jsonl").exists()
        return LineReader(self.folder, len(self), name) if there else None

    def _read(self, name: str) -> np.ndarray:
        """The rows of one of the files, which must be as the manifest says."""
        path, manifest = self.folder / f"{name}.npy", self.manifest
        rows = read_vectors(path)
        count = manifest.num_vectors if manifest.is_ragged else manifest.count
        width, dtype = shape_of(name, manifest)
        if rows.shape != (count, width) or rows.dtype != dtype:
            raise InputError(
                f"{path}: got {rows.shape} {rows.dtype}, expected {(count, width)} {dtype}; build "
                "the index anew"
            )
        return rows

    def _read_borders(self) -> np.ndarray:
        """(count + 1,) int64. Where the vectors of each document begin, and the end."""
        path, count = self.folder / "ends.npy", self.manifest.count  # len() cannot be any number
        borders = np.concatenate([[0], read_vectors(path)[:, 0]])
        ascend = bool((np.diff(borders) > 0).all())
        if len(borders) != count + 1 or borders[-1] != len(self._exact) or not ascend:
            raise InputError(
                f"{path}: does not lead in {count} steps from 0 to {len(self._exact)}; build "
                "the index anew"
            )
        return borders

    def _blocks(self) -> Iterator[slice]:
        """Yield the documents in blocks that are compared together."""
        if self._borders is not None:
            yield from runs(np.diff(self._borders), _BLOCK_VECTORS)
            return
        for start in range(0, len(self), _BLOCK_VECTORS):
            yield slice(start, min(start + _BLOCK_VECTORS, len(self)))

    def _vectors(self, place: Any) -> np.ndarray:
        """The vectors that are searched, as float32."""
        vectors: np.ndarray = self._coarse[place].astype(np.float32)
        return vectors if self._scales is None else vectors * self._scales[place]

    def _scores(self, queries: Sequence[np.ndarray], rows: slice) -> np.ndarray:
        """Compute (num_queries, rows of the block) float32, with the vectors that are searched."""
        if self._borders is None:
            place, lengths = rows, np.ones(rows.stop - rows.start, np.int64)
        else:
            borders = self._borders[rows.start : rows.stop + 1]
            place, lengths = slice(borders[0], borders[-1]), np.diff(borders)
        asked = np.concatenate(queries)
        if self.manifest.kind == "binary":
            products = scores_of_bits(to_bits(asked), self._coarse[place]).T
        else:
            products = self._coarse[place].astype(np.float32, copy=False) @ asked.T
            if self._scales is not None:
                products *= self._scales[place]
        scores = reduced(products, lengths, [len(query) for query in queries])
        return np.ascontiguousarray(scores)

    def _compared(self, query: np.ndarray, rows: np.ndarray, top_k: int) -> Found:
        """Compare candidates with a query by MaxSim, equal scores in the order of rows."""
        scores = self._max_sim(query, rows)
        order = np.argsort(-scores, kind="stable")[:top_k]
        return scores[order], rows[order]

    def _max_sim(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        assert self._borders is not None
        if self._scales is not None:
            stored = map(to_tensor, (self._exact, self._scales, self._borders, rows, query))
            if (found := max_sim(*stored)) is not None:
                return found.numpy()
        begins = self._borders[rows]
        lengths = self._borders[rows + 1] - begins
        scores = np.empty(len(rows), np.float32)
        for some in runs(lengths, _BLOCK_VECTORS):
            counts = lengths[some]
            shifts = np.repeat(begins[some] - np.cumsum(counts) + counts, counts)
            places = shifts + np.arange(len(shifts))
            products = self._exact[places].astype(np.float32) @ query.T
            if self._scales is not None:
                products *= self._scales[places]
            scores[some] = reduced(products, counts, [len(query)])[0]
        return scores

    def _rescored(self, query: np.ndarray, found: np.ndarray, top_k: int) -> Found:
        """Score candidates again in float32, equal scores in the order of rows."""
        rows = np.sort(found)
        scores = self._exact[rows] @ query[0]
        order = np.argsort(-scores, kind="stable")[:top_k]
        return scores[order], rows[order]
