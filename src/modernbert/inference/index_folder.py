"""A search index on the disk, and building one from vectors in bounded memory.

manifest.json           number and kind of the vectors, what compares them, and whose they are
float32.npy             all vectors; of length 1 where cosines are compared
int8.npy, scales.npy    the same in a quarter of the bytes, or
binary.npy              in a thirty-second
ids.jsonl, ids.npy      the id of each vector, a line each, and where each line begins
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from modernbert.errors import InputError
from modernbert.files import new_folder
from modernbert.inference.codes import to_bits, to_int8
from modernbert.inference.id_file import IdWriter
from modernbert.inference.vector_file import VectorFile

MANIFEST_FILE = "manifest.json"
FORMAT = "modernbert search index 1"
_BLOCK_ROWS = 16_384

T = TypeVar("T")

IndexKind = Literal["float32", "int8", "binary"]
IndexSimilarity = Literal["cosine", "dot"]


@dataclass(frozen=True, kw_only=True)
class IndexManifest:
    """What an index holds.

    count, dim: how many vectors, of how many numbers.
    kind: what is searched in; the best by int8 or binary are scored again by float32.
    similarity: what the scores are.
    model: whose vectors they are, so that queries come from the same; empty when not known.
    """

    count: int
    dim: int
    kind: IndexKind
    similarity: IndexSimilarity
    model: str = ""
    format: str = FORMAT

    @classmethod
    def read(cls, folder: Path) -> "IndexManifest":
        """Read the manifest of a folder.

        Raises:
            InputError: no index there, or one of another format.
        """
        return read_manifest(cls, folder, FORMAT)


def build_index(
    folder: Path | str,
    blocks: Iterable[np.ndarray],
    *,
    ids: Iterable[str] | None = None,
    kind: IndexKind = "float32",
    similarity: IndexSimilarity = "cosine",
    model: str = "",
) -> IndexManifest:
    """Write an index of vectors that come in blocks of any size (n, dim).

    folder: is made, and appears when the index is complete.
    ids: one for each vector; their numbers from 0 when None.

    Raises:
        InputError: a folder that is there, no vectors, vectors of different sizes or that are not
            finite, or another number of ids.
    """
    folder = Path(folder).expanduser()
    require_one_of("kind", kind, get_args(IndexKind))
    require_one_of("similarity", similarity, get_args(IndexSimilarity))
    checked = _checked(blocks, normalize=similarity == "cosine")
    with whole_index(folder) as partial:
        count, dim = _write(partial, checked, ids, kind)
        manifest = IndexManifest(
            count=count, dim=dim, kind=kind, similarity=similarity, model=model
        )
        write_manifest(partial, manifest)
    return manifest


@contextmanager
def whole_index(folder: Path) -> Iterator[Path]:
    """A folder to fill that becomes the index when the block ends well.

    Raises:
        InputError: a folder that is there, or cannot be written.
    """
    if folder.exists():
        raise InputError(f"{folder}: is there already; delete it or name another folder")
    try:
        with new_folder(folder) as partial:
            yield partial
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error}") from None


def write_manifest(folder: Path, manifest: Any) -> None:
    """Write the fields of a manifest, a dataclass, as JSON."""
    text = json.dumps(asdict(manifest), indent=2) + "\n"
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def format_of(folder: Path) -> str:
    """The format that a manifest names.

    Raises:
        InputError: no index there.
    """
    try:
        return str(json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))["format"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder}: not a search index: {error}") from None


def read_manifest(cls: type[T], folder: Path, expected: str) -> T:
    """A manifest of a class and of a format.

    Raises:
        InputError: no index there, or one of another format.
    """
    path = folder / MANIFEST_FILE
    if (found := format_of(folder)) != expected:
        raise InputError(f"{path}: format {found!r}, expected {expected!r}; build anew")
    try:
        return cls(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder}: not a search index: {error}") from None


def require_one_of(name: str, got: str, known: Sequence[str]) -> None:
    """Refuse what is none of a few words.

    Raises:
        InputError: naming them.
    """
    if got not in known:
        raise InputError(f"{name}: got {got!r}, expected one of {', '.join(known)}")


def _checked(blocks: Iterable[np.ndarray], *, normalize: bool) -> Iterator[np.ndarray]:
    """Blocks of bounded size (n, dim) float32, all of one width, finite."""
    dim, row = None, 0
    for block in blocks:
        if block.ndim != 2 or (dim is not None and block.shape[1] != dim) or not block.shape[1]:
            width = "dim" if dim is None else dim
            raise InputError(f"vectors: got {block.shape} at row {row}, expected (n, {width})")
        dim = block.shape[1]
        for start in range(0, len(block), _BLOCK_ROWS):
            part = np.asarray(block[start : start + _BLOCK_ROWS], np.float32)
            yield _as_stored(part, row + start, normalize=normalize)
        row += len(block)


def _as_stored(vectors: np.ndarray, first_row: int, *, normalize: bool) -> np.ndarray:
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise InputError(f"vectors: row {first_row + int(finite.argmin())} is not finite")
    return unit(vectors) if normalize else vectors


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: np.ndarray = vectors / np.where(lengths > 0, lengths, 1)
    return scaled.astype(np.float32, copy=False)


def _write(
    folder: Path, blocks: Iterator[np.ndarray], ids: Iterable[str] | None, kind: IndexKind
) -> tuple[int, int]:
    """Write vectors, codes and ids; returns how many there are, of how many numbers."""
    first = next((block for block in blocks if len(block)), None)
    if first is None:
        raise InputError("vectors: got none; an index needs one or more")
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(VectorFile(folder / f"{name}.npy", rows.shape[1], rows.dtype))
            for name, rows in _coded(first, kind).items()
        }
        names = stack.enter_context(IdWriter(folder, ids))
        for block in _with_first(first, blocks):
            for name, rows in _coded(block, kind).items():
                files[name].append(rows)
            names.take(len(block))
        names.finish()
    return names.num_rows, first.shape[1]


def _coded(block: np.ndarray, kind: IndexKind) -> dict[str, np.ndarray]:
    """What is stored of vectors, by the name of the file."""
    if kind == "int8":
        codes, scales = to_int8(block)
        return {"float32": block, "int8": codes, "scales": scales}
    return {"float32": block, "binary": to_bits(block)} if kind == "binary" else {"float32": block}


def _with_first(first: np.ndarray, others: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from others
