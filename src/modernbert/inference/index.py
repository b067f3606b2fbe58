"""`Index`: finding the documents that answer a query best, by vectors, by words or by both.

A document or a query is one vector or several. Several vectors are compared by MaxSim, which is the
plain product if both sides have one vector.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from modernbert.errors import InputError
from modernbert.extras import import_extra
from modernbert.files import new_file, write_whole
from modernbert.hashes import FileHash, as_bytes
from modernbert.inference.bm25 import rank_by_words
from modernbert.inference.index_changes import (
    FAISS_FILE,
    FAISS_HASHES_FILE,
    add_documents,
    compact,
    delete_documents,
    open_segments,
    starts_of,
)
from modernbert.inference.index_files import read_vectors
from modernbert.inference.index_folder import Block, IndexManifest, IndexOptions, build_index, unit
from modernbert.inference.index_segment import Found
from modernbert.inference.similarity import Fusion, check_vectors, runs
from modernbert.reading import user_path

_BLOCK_VECTORS = 16_384
_QUERY_VECTORS = 256
Queries = np.ndarray | Sequence[np.ndarray]


@dataclass(frozen=True)
class Hit:
    """A document that was found.

    Attributes:
        id: The id that it was given, or its number.
        row: Its number in the index, from 0, until the index is changed.
        score: The cosine, dot product or MaxSim, by the most exact vectors that are stored; the
            score of BM25 if only words were searched, and that of the fusion if both were.
        text: What it says, if the index keeps texts.
        fields: More about it, such as its title, if the index keeps that.
    """

    id: str
    row: int
    score: float
    text: str | None = None
    fields: Mapping[str, Any] | None = None


class Index:
    """An index on disk, mapped into memory, so it may be larger than the memory.

    Make one with `Index.build`, and open it with `Index.open`. It stays as it was when it was
    opened, also while others change the folder; `add`, `delete` and `compact` change the folder and
    this object.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read()

    def _read(self) -> None:
        _, self._segments = open_segments(self.folder)
        self._starts = starts_of(self._segments)

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
        fields: Iterable[Mapping[str, Any]] | None = None,
        **options: Unpack[IndexOptions],
    ) -> "Index":
        """Write an index of documents that come in blocks, and open it.

        Args:
            folder: A new folder, which appears when the index is complete.
            blocks: Arrays (n, dim) of documents with one vector each; or lists of arrays
                (num_vectors, dim), a document each.
            ids: One for each document, by which it can be replaced and deleted; by default their
                numbers from 0.
            texts: What each document says, to be shown with what is found and searched by words.
            fields: More to show of each document, such as its title.
            **options: How the index is built; see `IndexOptions`.

        Raises:
            InputError: The folder exists, there are no documents, their vectors are not finite or
                differ in size, or an option is not valid.
        """
        build_index(folder, blocks, ids=ids, texts=texts, fields=fields, **options)
        return cls.open(folder)

    def add(
        self,
        blocks: Iterable[Block],
        *,
        ids: Iterable[str],
        texts: Iterable[str] | None = None,
        fields: Iterable[Mapping[str, Any]] | None = None,
        model: str = "",
    ) -> int:
        """Add documents; one whose id is there already takes the place of the earlier one.

        Other processes see all of the documents or none.

        Args:
            blocks: As in `build`.
            ids: One for each document, all different.
            texts: One for each document, if the index keeps texts.
            fields: One for each document, if the index keeps fields.
            model: The fingerprint of the model of the vectors; empty for no check.

        Returns:
            How many documents were added.

        Raises:
            InputError: The documents are of another kind than those of the index, or not valid.
            InUseError: Another process is changing the index.
        """
        num_added = add_documents(
            self.folder, blocks, ids=ids, texts=texts, fields=fields, model=model
        )
        self._read()
        return num_added

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents by their ids; ids that are not there are passed over.

        Returns:
            How many documents were deleted.

        Raises:
            InputError: The index has no ids.
            InUseError: Another process is changing the index.
        """
        num_deleted = delete_documents(self.folder, ids)
        self._read()
        return num_deleted

    def compact(self) -> None:
        """Write the documents into one segment, which frees the space of deleted ones.

        Raises:
            InputError: No documents are left, or the index has no ids.
            InUseError: Another process is changing the index.
        """
        compact(self.folder)
        self._read()

    def __repr__(self) -> str:
        return f"Index({str(self.folder)!r}, {len(self):,} documents)"

    def __len__(self) -> int:
        return sum(each.num_alive for each in self._segments)

    @property
    def manifest(self) -> IndexManifest:
        """What the index holds, over all segments; deleted documents count among the vectors."""
        manifests = [each.manifest for each in self._segments]
        if len(manifests) == 1 and self._segments[0].dead is None:
            return manifests[0]
        counts = [each.num_vectors for each in manifests if each.num_vectors is not None]
        return replace(
            manifests[0],
            count=max(len(self), 1),
            num_vectors=sum(counts) if len(counts) == len(manifests) else None,
            files={},
        )

    def search(
        self,
        queries: Queries | None = None,
        top_k: int = 10,
        *,
        texts: str | Iterable[str] | None = None,
        fusion: Fusion | None = None,
        oversample: int | None = None,
    ) -> list[list[Hit]]:
        """Find the documents that answer each query best, best first.

        Args:
            queries: (num_queries, dim), or (dim,), for one vector per query; or a list of
                (num_vectors, dim). None to search by words alone.
            top_k: The number of documents; all of them if there are fewer.
            texts: The same queries as texts, to find documents by their words too, with BM25.
            fusion: How both rankings are joined; by reciprocal ranks when None.
            oversample: If candidates are found by int8 or binary vectors or by encodings, how many
                times `top_k` of them are scored again by the vectors; by default 4, 16 and 384.

        Returns:
            A list for each query, also for a single query.

        Raises:
            InputError: The queries have another dimension, there are not as many texts, the index
                was built without BM25, or `top_k` or `oversample` is below 1.
        """
        for name, value in (("top_k", top_k), ("oversample", oversample)):
            if value is not None and value < 1:
                raise InputError(f"{name}: got {value}, expected 1 or more")
        if texts is None:
            if queries is None:
                raise InputError("queries: got none; give vectors, texts or both")
            return [self._hits(*each) for each in self._by_vectors(queries, top_k, oversample)]
        asked = [texts] if isinstance(texts, str) else list(texts)
        if queries is None:
            return [self._hits(*each) for each in self._by_words(asked, top_k)]
        fusion = fusion or Fusion()
        depth = max(top_k, fusion.depth)
        by_vectors = list(self._by_vectors(queries, depth, oversample))
        if len(asked) != len(by_vectors):
            raise InputError(f"texts: got {len(asked)}, expected one for each of {len(by_vectors)}")
        return [
            self._hits(*_joined(fusion, *pair, top_k))
            for pair in zip(by_vectors, self._by_words(asked, depth), strict=True)
        ]

    @property
    def keeps_texts(self) -> bool:
        """Whether the texts of the documents are kept."""
        return self._segments[0].texts is not None

    @property
    def field_names(self) -> tuple[str, ...]:
        """The names of the fields that are kept of each document."""
        return self._segments[0].field_names

    def require_fields(self, names: Iterable[str]) -> None:
        """Refuse to show what the index does not keep; a text that is absent is passed over.

        Raises:
            InputError: Naming the fields that there are.
        """
        for name in names:
            if name != "text" and name not in self.field_names:
                known = ", ".join(("score", "id", "row", "text", *self.field_names))
                raise InputError(f"{self.folder}: keeps no field {name!r}; it has {known}")

    def _by_vectors(self, queries: Queries, top_k: int, oversample: int | None) -> Iterator[Found]:
        vectors = self._checked(queries)
        for chosen in runs([len(each) for each in vectors], _QUERY_VECTORS):
            parts = [each.search(vectors[chosen], top_k, oversample) for each in self._segments]
            for found in zip(*parts, strict=True):
                yield self._merged(found, top_k)

    def _by_words(self, texts: Sequence[str], top_k: int) -> Iterator[Found]:
        parts = [each.bm25 for each in self._segments]
        return rank_by_words(parts, texts, top_k, [each.dead for each in self._segments])

    def _merged(self, found: Sequence[Found], top_k: int) -> Found:
        """The best of all segments, from the best of each."""
        if len(found) == 1:
            return found[0]
        scores = np.concatenate([each for each, _ in found])
        places = zip(found, self._starts, strict=True)
        rows = np.concatenate([rows + start for (_, rows), start in places])
        order = np.lexsort((rows, -scores))[:top_k]
        return scores[order], rows[order]

    def _checked(self, queries: Any) -> list[np.ndarray]:
        """Return the vectors of each query, (num_vectors, dim) float32."""
        manifest = self._segments[0].manifest
        dim = manifest.dim
        if isinstance(queries, np.ndarray) or not manifest.is_ragged:
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
        return [unit(query) if manifest.similarity == "cosine" else query for query in queries]

    def _hits(self, scores: np.ndarray, rows: np.ndarray) -> list[Hit]:
        numbers = np.searchsorted(self._starts, rows, "right") - 1
        said: dict[int, tuple[str, str | None, Mapping[str, Any] | None]] = {}
        for number in np.unique(numbers).tolist():
            segment, chosen = self._segments[number], rows[numbers == number]
            places, none = (chosen - self._starts[number]).tolist(), [None] * len(chosen)
            names = segment.ids.of(places) or chosen.tolist()
            texts = (segment.texts and segment.texts.of(places)) or none
            fields = (segment.fields and segment.fields.of(places)) or none
            parts = zip(map(str, names), texts, fields, strict=True)
            said.update(zip(chosen.tolist(), parts, strict=True))
        found = zip(rows.tolist(), scores.tolist(), strict=True)
        return [Hit(said[row][0], row, score, *said[row][1:]) for row, score in found]


def _joined(fusion: Fusion, by_vectors: Found, by_words: Found, top_k: int) -> Found:
    rankings = [
        list(zip(rows.tolist(), scores.tolist(), strict=True))
        for scores, rows in (by_vectors, by_words)
    ]
    found = fusion(*rankings)[:top_k]
    return np.array([score for _, score in found]), np.array([row for row, _ in found], np.int64)


def write_faiss(folder: Path | str) -> Path:
    """Write `index.faiss` into the folder of a search index, for programs that read such files.

    It holds the vectors that are searched, scaled to length 1 if cosines are compared, in the order
    of the ids, and compares all of them (IndexFlatIP). Its hash is written beside it.

    Args:
        folder: The folder of the index.

    Returns:
        The path of the file.

    Raises:
        InputError: There is no search index.
        MissingPackageError: faiss is not installed.
    """
    folder = user_path(folder)
    _, segments = open_segments(folder)
    if len(segments) > 1 or segments[0].dead is not None:
        raise InputError(f"{folder}: was changed; run `modernbert index compact` on it first")
    faiss = import_extra("faiss")
    index = faiss.IndexFlatIP(segments[0].manifest.dim)
    vectors = read_vectors(segments[0].folder / "float32.npy")
    for start in range(0, len(vectors), _BLOCK_VECTORS):
        index.add(vectors[start : start + _BLOCK_VECTORS])
    with new_file(folder / FAISS_FILE) as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
    hashes = {FAISS_FILE: FileHash.of(folder / FAISS_FILE)}
    write_whole(folder / FAISS_HASHES_FILE, as_bytes(hashes))
    return folder / FAISS_FILE
