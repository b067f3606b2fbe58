"""`Index`: finding the documents that answer a query best, by comparing it with all of them.

A document or a query is one vector or several. Several vectors are compared by MaxSim, which is the
plain product if both sides have one vector.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modernbert.errors import InputError
from modernbert.extras import import_extra
from modernbert.files import TEMPORARY_PREFIX
from modernbert.inference.index_files import StringReader, read_vectors, scores_of_bits, to_bits
from modernbert.inference.index_folder import (
    Block,
    IndexKind,
    IndexManifest,
    IndexSimilarity,
    build_index,
    shape_of,
    unit,
)
from modernbert.inference.similarity import Best, check_vectors, reduced, runs
from modernbert.reading import user_path

_BLOCK_VECTORS = 16_384
_QUERY_VECTORS = 256
FAISS_FILE = "index.faiss"
_OVERSAMPLE: dict[IndexKind, int] = {"int8": 4, "binary": 16}


@dataclass(frozen=True)
class Hit:
    """A document that was found.

    Attributes:
        id: The id that it was given, or its number.
        row: Its number in the index, from 0.
        score: The cosine, dot product or MaxSim, by the most exact vectors that are stored.
    """

    id: str
    row: int
    score: float
    text: str | None = None


class Index:
    """An index on disk, mapped into memory, so it may be larger than the memory.

    Make one with `Index.build`, and open it with `Index.open`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = IndexManifest.read(folder)
        self.manifest.check_sizes(folder)
        kind, is_ragged = self.manifest.kind, self.manifest.is_ragged
        self._exact = self._read("vectors" if is_ragged else "float32")
        has_codes = kind in _OVERSAMPLE and not is_ragged
        self._coarse = self._read(kind) if has_codes else self._exact
        self._scales = self._read("scales") if kind == "int8" else None
        self._ids = StringReader(folder, self.manifest.count)
        has_texts = (folder / "texts.jsonl").exists()
        self._kept = StringReader(folder, self.manifest.count, "texts") if has_texts else None
        self._borders = self._read_borders() if is_ragged else None

    @classmethod
    def open(cls, folder: Path | str) -> "Index":
        """Open an index, including those of older formats.

        Args:
            folder: The folder of the index.

        Raises:
            InputError: There is no index, or its files do not fit each other.
        """
        return cls(user_path(folder))

    @classmethod
    def build(
        cls,
        folder: Path | str,
        blocks: Iterable[Block],
        *,
        ids: Iterable[str] | None = None,
        texts: Iterable[str] | None = None,
        kind: IndexKind | None = None,
        similarity: IndexSimilarity | None = None,
        model: str = "",
    ) -> "Index":
        """Write an index of documents that come in blocks, and open it.

        See `build_index` for the arguments.
        """
        build_index(
            folder, blocks, ids=ids, texts=texts, kind=kind, similarity=similarity, model=model
        )
        return cls.open(folder)

    def __len__(self) -> int:
        return self.manifest.count

    def search(
        self,
        queries: np.ndarray | Sequence[np.ndarray],
        top_k: int = 10,
        *,
        oversample: int | None = None,
    ) -> list[list[Hit]]:
        """Find the documents that answer each query best, best first.

        Args:
            queries: (num_queries, dim), or (dim,), for one vector per query; or a list of
                (num_vectors, dim).
            top_k: The number of documents; all of them if there are fewer.
            oversample: If candidates are found by int8 or binary vectors, how many times `top_k` of
                them are scored again in float32; by default 4 and 16.

        Returns:
            A list for each query, also for a single query.

        Raises:
            InputError: The queries have another dimension, or `top_k` or `oversample` is below 1.
        """
        again = self._coarse is not self._exact
        factor = _OVERSAMPLE[self.manifest.kind] if again and oversample is None else oversample
        for name, value in (("top_k", top_k), ("oversample", factor)):
            if value is not None and value < 1:
                raise InputError(f"{name}: got {value}, expected 1 or more")
        texts = self._checked(queries)
        num = top_k * (factor or 1) if again else top_k
        hits: list[list[Hit]] = []
        for chosen in runs([len(text) for text in texts], _QUERY_VECTORS):
            best = Best(len(texts[chosen]), num)
            for rows in self._blocks():
                best.add(self._scores(texts[chosen], rows), rows.start)
            hits += [self._hits(*each, top_k) for each in self._ordered(texts[chosen], best)]
        return hits

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
        path = self.folder / "ends.npy"
        borders = np.concatenate([[0], read_vectors(path)[:, 0]])
        ascend = bool((np.diff(borders) > 0).all())
        if len(borders) != len(self) + 1 or borders[-1] != len(self._exact) or not ascend:
            raise InputError(
                f"{path}: does not lead in {len(self)} steps from 0 to {len(self._exact)}; build "
                "the index anew"
            )
        return borders

    def _checked(self, queries: Any) -> list[np.ndarray]:
        """Return the vectors of each query, (num_vectors, dim) float32."""
        dim = self.manifest.dim
        if isinstance(queries, np.ndarray) or not self.manifest.is_ragged:
            rows = np.atleast_2d(np.asarray(queries, np.float32))
            if rows.ndim != 2 or rows.shape[1] != dim:
                raise InputError(f"queries: got {rows.shape}, expected (num_queries, {dim})")
            queries = list(rows[:, None])
        check_vectors(queries, "queries")
        if queries and queries[0].shape[1] != dim:
            raise InputError(
                f"queries: got vectors of {queries[0].shape[1]} numbers, expected {dim}"
            )
        if not all(np.isfinite(query).all() for query in queries):
            raise InputError("queries: got a number that is not finite")
        is_cosine = self.manifest.similarity == "cosine"
        return [unit(query) if is_cosine else query for query in queries]

    def _blocks(self) -> Iterator[slice]:
        """Yield the documents in blocks that are compared together."""
        if self._borders is not None:
            yield from runs(np.diff(self._borders), _BLOCK_VECTORS)
            return
        for start in range(0, len(self), _BLOCK_VECTORS):
            yield slice(start, min(start + _BLOCK_VECTORS, len(self)))

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

    def _ordered(
        self, queries: Sequence[np.ndarray], best: Best
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Return scores and rows of the best for each query, equal scores in the order of rows."""
        if self._borders is not None:
            yield from best.ordered()
            return
        for query, found in zip(queries, best.rows, strict=True):
            rows = np.sort(found)
            scores = self._exact[rows] @ query[0]
            order = np.argsort(-scores, kind="stable")
            yield scores[order], rows[order]

    def _hits(self, scores: np.ndarray, rows: np.ndarray, top_k: int) -> list[Hit]:
        rows, scores = rows[:top_k], scores[:top_k]
        places = rows.tolist()
        names = self._ids.of(places) or map(str, places)
        texts: Sequence[str | None] = (self._kept and self._kept.of(places)) or [None] * len(rows)
        found = zip(names, places, scores.tolist(), texts, strict=True)
        return [Hit(name, row, score, text) for name, row, score, text in found]


def write_faiss(folder: Path | str) -> Path:
    """Write `index.faiss` into the folder of a search index, for programs that read such files.

    It holds the vectors that are searched, scaled to length 1 if cosines are compared, in the order
    of the ids, and compares all of them (IndexFlatIP).

    Args:
        folder: The folder of the index.

    Returns:
        The path of the file.

    Raises:
        InputError: There is no search index.
        MissingPackageError: faiss is not installed.
    """
    folder = user_path(folder)
    manifest = IndexManifest.read(folder)
    faiss = import_extra("faiss")
    index = faiss.IndexFlatIP(manifest.dim)
    vectors = read_vectors(folder / "float32.npy")
    for start in range(0, len(vectors), _BLOCK_VECTORS):
        index.add(vectors[start : start + _BLOCK_VECTORS])
    temporary = folder / f"{TEMPORARY_PREFIX}{FAISS_FILE}"
    faiss.write_index(index, str(temporary))
    temporary.replace(folder / FAISS_FILE)
    return folder / FAISS_FILE
