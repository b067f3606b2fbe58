"""`MultiVectorIndex`: the documents that answer a query best by MaxSim, by looking at all of them.

manifest.json           number of documents and of vectors, what is stored, and whose they are
vectors.npy             all vectors of all documents, one after the other
scales.npy              of int8, what 1 stands for in each vector
ends.npy                where each document's vectors end
ids.jsonl, ids.npy      the id of each document
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from modernbert.errors import InputError
from modernbert.inference.codes import to_int8
from modernbert.inference.id_file import IdReader, IdWriter
from modernbert.inference.index_folder import (
    read_manifest,
    require_one_of,
    whole_index,
    write_manifest,
)
from modernbert.inference.max_sim import check_vectors, runs, scores_of_block
from modernbert.inference.search import Best, Hit, as_hits
from modernbert.inference.vector_file import VectorFile, read_vectors

FORMAT = "modernbert multi-vector index 1"
_BLOCK_VECTORS = 16_384
_QUERY_VECTORS = 1_024

MultiVectorKind = Literal["float32", "float16", "int8"]


@dataclass(frozen=True, kw_only=True)
class MultiVectorManifest:
    """What an index holds.

    count, num_vectors, dim: how many documents, with how many vectors, of how many numbers.
    kind: how the vectors are stored; the scores are those of what is stored.
    model: whose vectors they are, so that queries come from the same; empty when not known.
    """

    count: int
    num_vectors: int
    dim: int
    kind: MultiVectorKind
    model: str = ""
    format: str = FORMAT


def build_multi_vector_index(
    folder: Path | str,
    blocks: Iterable[Sequence[np.ndarray]],
    *,
    ids: Iterable[str] | None = None,
    kind: MultiVectorKind = "float16",
    model: str = "",
) -> MultiVectorManifest:
    """Write an index of documents, which come in lists: each (num_vectors, dim).

    folder: is made, and appears when the index is complete.
    ids: one for each document; their numbers from 0 when None.

    Raises:
        InputError: a folder that is there, no documents, one without vectors, vectors of different
            sizes or that are not finite, or another number of ids.
    """
    folder = Path(folder).expanduser()
    require_one_of("kind", kind, get_args(MultiVectorKind))
    documents = (document for block in blocks for document in block)
    with whole_index(folder) as partial:
        count, num_vectors, dim = _write(partial, documents, ids, kind)
        manifest = MultiVectorManifest(
            count=count, num_vectors=num_vectors, dim=dim, kind=kind, model=model
        )
        write_manifest(partial, manifest)
    return manifest


class MultiVectorIndex:
    """An index on the disk, memory-mapped: it may be larger than the memory.

    Make one with `build_multi_vector_index`, open it with `MultiVectorIndex.open`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(MultiVectorManifest, folder, FORMAT)
        self._vectors = read_vectors(folder / "vectors.npy")
        self._scales = read_vectors(folder / "scales.npy") if self._is_int8 else None
        self._ids = IdReader(folder, self.manifest.count)
        ends = read_vectors(folder / "ends.npy")[:, 0]
        self._borders = np.concatenate([[0], ends])
        expected = self.manifest.count, self.manifest.num_vectors
        found = len(ends), len(self._vectors)
        if found != expected or self._borders[-1] != expected[1]:
            raise InputError(f"{folder}: got {found} rows, expected {expected}; build it anew")

    @classmethod
    def open(cls, folder: Path | str) -> "MultiVectorIndex":
        """Open an index.

        Raises:
            InputError: no index there, or one whose files do not fit each other.
        """
        return cls(Path(folder).expanduser())

    def __len__(self) -> int:
        return self.manifest.count

    def search(self, queries: Sequence[np.ndarray], top_k: int = 10) -> list[list[Hit]]:
        """The documents that answer each query best, best first.

        queries: (num_vectors, dim) float32 each.
        top_k: how many; all when there are fewer.

        Raises:
            InputError: queries of another dimension, or a top_k below 1.
        """
        if top_k < 1:
            raise InputError(f"top_k: got {top_k}, expected 1 or more")
        check_vectors(queries, "queries")
        if queries and queries[0].shape[1] != self.manifest.dim:
            raise InputError(
                f"queries: got vectors of {queries[0].shape[1]} numbers, "
                f"expected {self.manifest.dim}"
            )
        hits: list[list[Hit]] = []
        for chosen in runs([len(query) for query in queries], _QUERY_VECTORS):
            best = Best(len(queries[chosen]), top_k)
            for rows in runs(np.diff(self._borders), _BLOCK_VECTORS):
                best.add(self._scores(queries[chosen], rows), rows.start)
            hits += [as_hits(self._ids, scores, rows) for scores, rows in best.ordered()]
        return hits

    @property
    def _is_int8(self) -> bool:
        return self.manifest.kind == "int8"

    def _scores(self, queries: Sequence[np.ndarray], rows: slice) -> np.ndarray:
        borders = self._borders[rows.start : rows.stop + 1]
        vectors = self._vectors[borders[0] : borders[-1]].astype(np.float32)
        if self._scales is not None:
            vectors *= self._scales[borders[0] : borders[-1]]
        return np.ascontiguousarray(scores_of_block(queries, vectors, np.diff(borders)))


def _write(
    folder: Path,
    documents: Iterator[np.ndarray],
    ids: Iterable[str] | None,
    kind: MultiVectorKind,
) -> tuple[int, int, int]:
    """Write everything but the manifest; the numbers of documents, vectors, and of each."""
    first = next(documents, None)
    if first is None:
        raise InputError("documents: got none; an index needs one or more")
    check_vectors([first], "documents")
    dim = first.shape[1]
    with ExitStack() as stack:
        opened = stack.enter_context
        dtype = {"float32": np.float32, "float16": np.float16, "int8": np.int8}[kind]
        vectors = opened(VectorFile(folder / "vectors.npy", dim, dtype))
        scales = opened(VectorFile(folder / "scales.npy", 1)) if kind == "int8" else None
        ends = opened(VectorFile(folder / "ends.npy", 1, np.int64))
        names = opened(IdWriter(folder, ids))
        for block in _blocks(chain([first], documents), dim):
            joined = np.concatenate(block)
            if scales is not None:
                joined, scale = to_int8(joined)
                scales.append(scale)
            lengths = np.array([[len(each)] for each in block])
            ends.append(vectors.num_rows + np.cumsum(lengths, axis=0))
            vectors.append(joined)
            names.take(len(block))
        names.finish()
        return names.num_rows, vectors.num_rows, dim


def _blocks(documents: Iterable[np.ndarray], dim: int) -> Iterator[list[np.ndarray]]:
    """Documents in lists of bounded size, checked."""
    block: list[np.ndarray] = []
    total = 0
    for row, document in enumerate(documents):
        if document.ndim != 2 or not len(document) or document.shape[1] != dim:
            got = document.shape
            raise InputError(f"documents: got {got} at row {row}, expected (1 or more, {dim})")
        if not np.isfinite(document).all():
            raise InputError(f"documents: row {row} is not finite")
        block.append(np.asarray(document, np.float32))
        total += len(document)
        if total >= _BLOCK_VECTORS:
            yield block
            block, total = [], 0
    if block:
        yield block
