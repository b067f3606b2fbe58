"""The files of documents that are searched together, and writing them in bounded memory.

An index that was never changed is one such folder. One that was changed has several within it: see
`index_changes`.

manifest.json           numbers and kind of the vectors, what compares them, and whose they are
float32.npy             the vectors of documents that have one each; of length 1 for cosines
int8.npy, scales.npy    the same in a quarter of the bytes, to find candidates, or
binary.npy              in a thirty-second
vectors.npy, ends.npy   the vectors of documents that have several, and where each one's end
scales.npy              where those are int8, what 1 stands for in each
ids.jsonl, ids.npy      the id of each document, a line each, and where each line begins
texts.jsonl, texts.npy  the texts in the same way, if they are kept
fields.jsonl, ...       other fields of the documents in the same way, an object each
centroids.npy, ...      encodings that find candidates among them: see `index_encodings`
bm25/                   the words of the texts, as the library bm25s stores them
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, Unpack, get_args

import numpy as np

from modernbert.errors import InputError, SettingsError
from modernbert.files import new_folder
from modernbert.hashes import FileHash, find_size_fault, hash_folder, require_inner_paths
from modernbert.inference.bm25 import Bm25, words_of
from modernbert.inference.index_encodings import FILES as ENCODING_FILES
from modernbert.inference.index_encodings import write_encodings
from modernbert.inference.index_files import LineReader, LineWriter, VectorFile, to_bits, to_int8
from modernbert.inference.similarity import check_vectors
from modernbert.json_files import parse_foreign, read_json
from modernbert.kinds import MANIFEST_FILE, NAMES, find_kind
from modernbert.reading import user_path

FORMAT = "modernbert index 2"
_OLD_FORMATS = "modernbert search index 1", "modernbert multi-vector index 1"
_BLOCK_VECTORS = 16_384
MAX_CLUSTERS = 65_536

_LINES = "ids", "texts", "fields"
_VECTORS = "float32", "int8", "binary", "vectors", "ends", "scales", *ENCODING_FILES
FILES = *(f"{name}.npy" for name in (*_VECTORS, *_LINES)), *(f"{name}.jsonl" for name in _LINES)
"""What stands beside the manifest, but for the folder of BM25."""

IndexKind = Literal["float32", "float16", "int8", "binary"]
IndexSimilarity = Literal["cosine", "dot"]
Block = np.ndarray | Sequence[np.ndarray]
"""Documents: (n, dim) for one vector each, or a list of (num_vectors, dim)."""

KINDS: dict[bool, tuple[IndexKind, ...]] = {
    False: ("float32", "int8", "binary"),
    True: ("float32", "float16", "int8"),
}
"""The kinds of indexes of documents with one vector, and with several."""


@dataclass(frozen=True, kw_only=True)
class IndexManifest:
    """What an index holds.

    Attributes:
        count, num_vectors, dim: How many documents, with how many vectors, of how many numbers.
        kind: What is searched in. Of documents with one vector, the best by int8 or binary are
            scored again by float32; of others nothing but this is stored.
        similarity: What the products of vectors are.
        model: Whose vectors they are, so that queries come from the same; empty if not known.
        is_ragged: Whether documents have several vectors.
        bm25: The language by whose rules the words of the texts are indexed; empty if they are not.
        clusters: How many numbers encode a document that has several vectors, to find candidates;
            0 if all documents are compared.
        pool_factor: How many tokens of a document had one vector, on average (token pooling).
        files: The sizes and hashes of the other files; none in indexes of before.
    """

    count: int
    dim: int
    kind: IndexKind
    num_vectors: int | None = None
    similarity: IndexSimilarity = "dot"
    model: str = ""
    is_ragged: bool = False
    bm25: str = ""
    clusters: int = 0
    pool_factor: int = 1
    format: str = FORMAT
    files: Mapping[str, FileHash] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "IndexManifest":
        """Read the manifest of a folder, of this format or of one before it.

        Raises:
            InputError: No index is there, or one of another format.
        """
        path = folder / MANIFEST_FILE
        content = read_json(path, InputError)
        if not isinstance(content, dict):
            kind = find_kind(folder)
            found = "" if kind is None else f"; it holds {NAMES[kind]}"
            raise InputError(f"{folder}: not a search index: it has no {MANIFEST_FILE}{found}")
        if (named := content.get("format")) not in (FORMAT, *_OLD_FORMATS):
            raise InputError(f"{path}: format {named!r}, expected {FORMAT!r}; build it again")
        if named == _OLD_FORMATS[1]:
            content = {**content, "is_ragged": True}
        try:
            return parse_foreign(cls, content, str(path), error=InputError)
        except InputError as error:
            raise InputError(f"{folder}: not a search index: {error}") from None

    def __post_init__(self) -> None:
        numbers = self.count, self.dim, 1 if self.num_vectors is None else self.num_vectors
        if min(numbers) < 1:
            raise SettingsError(f"count, dim and num_vectors: got {numbers}, expected 1 or more")
        if self.kind not in KINDS[self.is_ragged]:
            raise SettingsError(f"kind: got {self.kind}, expected one of {KINDS[self.is_ragged]}")
        if not 0 <= self.clusters <= (MAX_CLUSTERS if self.is_ragged else 0):
            raise SettingsError(f"clusters: got {self.clusters}, which this index cannot have")
        require_inner_paths(self.files)

    def check_sizes(self, folder: Path) -> None:
        """Refuse files that are missing, cut or too long.

        Raises:
            InputError: Naming the first of them.
        """
        for name, expected in self.files.items():
            if fault := find_size_fault(folder / name, expected):
                raise InputError(f"{folder / name}: {fault}; copy it again or build the index anew")


class _Rows(NamedTuple):
    """Some documents.

    Attributes:
        vectors: (num_vectors, dim) float32, one document after the other.
        lengths: (num_documents,) int64, how many each has.
    """

    vectors: np.ndarray
    lengths: np.ndarray


class IndexOptions(TypedDict, total=False):
    """How an index is built.

    Attributes:
        kind: What is searched in; when None float32, and float16 for several vectors a document.
        similarity: What products are: cosines when None, whose vectors get length 1; and plain
            products of vectors as they are for several vectors a document.
        model: Whose vectors they are.
        bm25: The language of the texts, such as "english", if they are to be found by their words
            too, or "none" for words as they are; needs `texts` and the extra `search`.
        clusters: For documents with several vectors: find candidates by encodings of so many
            numbers, and compare only those exactly. 0 compares every document.
        pool_factor: How the documents' vectors were pooled, which the index only remembers.
    """

    kind: IndexKind | None
    similarity: IndexSimilarity | None
    model: str
    bm25: str
    clusters: int
    pool_factor: int


def build_index(
    folder: Path | str,
    blocks: Iterable[Block],
    *,
    ids: Iterable[str] | None = None,
    texts: Iterable[str] | None = None,
    fields: Iterable[Mapping[str, Any]] | None = None,
    dim: int | None = None,
    **options: Unpack[IndexOptions],
) -> IndexManifest:
    """Write an index of documents that come in blocks of any size.

    Args:
        folder: Is made, and appears when the index is complete.
        blocks: Arrays (n, dim) of documents with one vector each; or lists of arrays
            (num_vectors, dim), a document each.
        ids: One for each document; their numbers from 0 when None.
        texts: What each document says, to be shown with what is found; not kept when None.
        fields: More to show of each document, such as its title; not kept when None.
        dim: How many numbers a vector must have; those of the first one when None.
        **options: See `IndexOptions`.

    Raises:
        InputError: A folder that is there, no documents, vectors of different sizes or that are
            not finite, another number of ids, or an option that is not valid.
    """
    folder, source = user_path(folder), iter(blocks)
    language, kind = options.get("bm25", ""), options.get("kind")
    clusters = options.get("clusters", 0)
    if language:
        words_of(language)
        if texts is None:
            raise InputError("bm25: finds documents by the words of their texts; give texts")
    first = next((block for block in source if len(block)), None)
    is_ragged = first is not None and not isinstance(first, np.ndarray)
    kind = kind or ("float16" if is_ragged else "float32")
    similarity = options.get("similarity") or ("dot" if is_ragged else "cosine")
    require_one_of("kind", kind, KINDS[is_ragged])
    require_one_of("similarity", similarity, get_args(IndexSimilarity))
    require_clusters(clusters, is_ragged=is_ragged or first is None)
    if first is None:
        raise InputError("vectors: got none; an index needs one or more")
    every: Any = chain([first], source)
    is_cosine = similarity == "cosine"
    checked = _ragged(every, dim) if is_ragged else _single(every, dim, normalize=is_cosine)
    with _whole_index(folder) as partial:
        named = {"ids": None if ids is None else map(str, ids), "texts": texts, "fields": fields}
        lines = [
            LineWriter(partial, values, name)
            for name, values in named.items()
            if name == "ids" or values is not None
        ]
        count, num_vectors, width = _write(partial, checked, lines, kind, is_ragged=is_ragged)
        if language:
            Bm25.build(LineReader(partial, count, "texts"), language).save(partial / "bm25")
        if clusters:
            write_encodings(partial, clusters)
        manifest = IndexManifest(
            count=count,
            num_vectors=num_vectors,
            dim=width,
            kind=kind,
            similarity=similarity,
            model=options.get("model", ""),
            is_ragged=is_ragged,
            bm25=language,
            clusters=clusters,
            pool_factor=options.get("pool_factor", 1),
            files=hash_folder(partial),
        )
        text = json.dumps(asdict(manifest), indent=2) + "\n"
        (partial / MANIFEST_FILE).write_text(text, encoding="utf-8")
    return manifest


def index_bytes(manifest: IndexManifest) -> dict[str, int]:
    """Compute how many bytes the parts of an index will have, but for ids, texts and words.

    Args:
        manifest: What the index will hold.

    Returns:
        The bytes of each part; a search reads all of the first, or some of `vectors` if there are
        `encodings`.
    """
    rows = manifest.num_vectors or manifest.count
    kinds: dict[str, str] = {manifest.kind: manifest.kind}
    if manifest.is_ragged:
        kinds = {"vectors": "vectors"}
    elif manifest.kind != "float32":
        kinds["rescored"] = "float32"
    sizes = {}
    for name, file in kinds.items():
        width, dtype = shape_of(file, manifest)
        scale = 4 if file == "int8" or (file == "vectors" and manifest.kind == "int8") else 0
        sizes[name] = rows * (width * dtype.itemsize + scale)
    if manifest.clusters:
        sizes["encodings"] = manifest.clusters * (manifest.count + 4 * manifest.dim)
    return {**sizes, "places": 8 * manifest.count * (3 if manifest.is_ragged else 2)}


def require_one_of(name: str, got: str, known: Sequence[str]) -> None:
    """Refuse what is none of a few words.

    Raises:
        InputError: Naming them.
    """
    if got not in known:
        raise InputError(f"{name}: got {got!r}, expected one of {', '.join(known)}")


def require_clusters(clusters: int, *, is_ragged: bool) -> None:
    """Refuse numbers of clusters that no index can have.

    Raises:
        InputError: Saying so.
    """
    if not 0 <= clusters <= MAX_CLUSTERS:
        raise InputError(f"clusters: got {clusters}, expected a number from 0 to {MAX_CLUSTERS:,}")
    if clusters and not is_ragged:
        raise InputError("clusters: are for documents with several vectors each; leave it out")


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors to length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: np.ndarray = vectors / np.where(lengths > 0, lengths, 1)
    return scaled.astype(np.float32, copy=False)


@contextmanager
def _whole_index(folder: Path) -> Iterator[Path]:
    """A folder to fill that becomes the index when the block ends well."""
    if folder.exists():
        raise InputError(f"{folder}: already exists; delete it or choose another folder")
    try:
        with new_folder(folder) as partial:
            yield partial
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error}") from None


def _single(blocks: Iterable[np.ndarray], dim: int | None, *, normalize: bool) -> Iterator[_Rows]:
    """Blocks of bounded size, all of one width, finite."""
    row = 0
    for block in blocks:
        if block.ndim != 2 or (dim is not None and block.shape[1] != dim) or not block.shape[1]:
            width = "dim" if dim is None else dim
            raise InputError(f"vectors: got {block.shape} at row {row}, expected (n, {width})")
        dim = block.shape[1]
        for start in range(0, len(block), _BLOCK_VECTORS):
            part = np.asarray(block[start : start + _BLOCK_VECTORS], np.float32)
            finite = np.isfinite(part).all(axis=1)
            if not finite.all():
                raise InputError(f"vectors: row {row + start + int(finite.argmin())} is not finite")
            yield _Rows(unit(part) if normalize else part, np.ones(len(part), np.int64))
        row += len(block)


def _ragged(blocks: Iterable[Sequence[np.ndarray]], dim: int | None) -> Iterator[_Rows]:
    """Documents in blocks of bounded size, all of one width, finite."""
    block: list[np.ndarray] = []
    total = 0
    for row, document in enumerate(document for block in blocks for document in block):
        if dim is None:
            check_vectors([document], "documents")
            dim = document.shape[1]
        if document.ndim != 2 or not len(document) or document.shape[1] != dim:
            got = document.shape
            raise InputError(f"documents: got {got} at row {row}, expected (1 or more, {dim})")
        if not np.isfinite(document).all():
            raise InputError(f"documents: row {row} is not finite")
        block.append(np.asarray(document, np.float32))
        total += len(document)
        if total >= _BLOCK_VECTORS:
            yield _joined(block)
            block, total = [], 0
    if block:
        yield _joined(block)


def _joined(documents: list[np.ndarray]) -> _Rows:
    return _Rows(np.concatenate(documents), np.array([len(each) for each in documents]))


def _write(
    folder: Path,
    blocks: Iterator[_Rows],
    lines: Sequence[LineWriter],
    kind: IndexKind,
    *,
    is_ragged: bool,
) -> tuple[int, int, int]:
    """Write everything but the manifest; the numbers of documents, vectors, and of each."""
    files: dict[str, VectorFile] = {}
    num_vectors = dim = 0
    with ExitStack() as stack:
        for each in lines:
            stack.enter_context(each)
        for block in blocks:
            num_vectors, dim = num_vectors + len(block.vectors), block.vectors.shape[1]
            for name, rows in _stored(block.vectors, kind, is_ragged=is_ragged).items():
                if name not in files:
                    file = VectorFile(folder / f"{name}.npy", rows.shape[1], rows.dtype)
                    files[name] = stack.enter_context(file)
                files[name].append(rows)
            if is_ragged:
                if "ends" not in files:
                    files["ends"] = stack.enter_context(
                        VectorFile(folder / "ends.npy", 1, np.int64)
                    )
                before = num_vectors - len(block.vectors)
                files["ends"].append(before + np.cumsum(block.lengths)[:, None])
            for each in lines:
                each.take(len(block.lengths))
        for each in lines:
            each.finish()
    return lines[0].num_rows, num_vectors, dim


def _stored(vectors: np.ndarray, kind: IndexKind, *, is_ragged: bool) -> dict[str, np.ndarray]:
    """What is stored of vectors, by the name of the file."""
    if kind == "int8":
        codes, scales = to_int8(vectors)
        coded = {"vectors": codes} if is_ragged else {"float32": vectors, "int8": codes}
        return {**coded, "scales": scales}
    if kind == "binary":
        return {"float32": vectors, "binary": to_bits(vectors)}
    if is_ragged:
        return {"vectors": vectors.astype(kind)}
    return {"float32": vectors}


def shape_of(name: str, manifest: IndexManifest) -> tuple[int, np.dtype[Any]]:
    """Return how many numbers a row of a file has, and their type."""
    if name == "binary":
        return -(-manifest.dim // 64), np.dtype(np.uint64)  # see `to_bits`
    if name == "scales":
        return 1, np.dtype(np.float32)
    return manifest.dim, np.dtype(manifest.kind if name == "vectors" else name)
