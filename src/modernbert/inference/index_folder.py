"""A search index on the disk, and building one from vectors in bounded memory.

manifest.json           number and kind of the vectors, what compares them, and whose they are
float32.npy             all vectors; of length 1 where cosines are compared
int8.npy, scales.npy    the same in a quarter of the bytes, or
binary.npy              in a thirty-second
ids.jsonl, ids.npy      the id of each vector, a line each, and where each line begins
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from modernbert.errors import InputError
from modernbert.files import new_folder
from modernbert.inference.codes import to_bits, to_int8
from modernbert.inference.vector_file import VectorFile

MANIFEST_FILE = "manifest.json"
FORMAT = "modernbert search index 1"
_BLOCK_ROWS = 16_384

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
        path = folder / MANIFEST_FILE
        try:
            manifest = cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{folder}: not a search index: {error}") from None
        if manifest.format != FORMAT:
            raise InputError(f"{path}: format {manifest.format!r}, expected {FORMAT!r}; build anew")
        return manifest


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
    for name, got, kinds in (
        ("kind", kind, IndexKind),
        ("similarity", similarity, IndexSimilarity),
    ):
        if got not in get_args(kinds):
            raise InputError(f"{name}: got {got!r}, expected one of {', '.join(get_args(kinds))}")
    if folder.exists():
        raise InputError(f"{folder}: is there already; delete it or name another folder")
    checked = _checked(blocks, normalize=similarity == "cosine")
    try:
        with new_folder(folder) as partial:
            count, dim = _write(partial, checked, ids, kind)
            manifest = IndexManifest(
                count=count, dim=dim, kind=kind, similarity=similarity, model=model
            )
            text = json.dumps(asdict(manifest), indent=2) + "\n"
            (partial / MANIFEST_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error}") from None
    return manifest


def _require_one_of(name: str, got: str, known: Sequence[str]) -> None:
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
    names = None if ids is None else iter(ids)
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(VectorFile(folder / f"{name}.npy", rows.shape[1], rows.dtype))
            for name, rows in _coded(first, kind).items()
        }
        id_file = stack.enter_context((folder / "ids.jsonl").open("wb"))
        id_places = stack.enter_context(VectorFile(folder / "ids.npy", 1, np.int64))
        count = 0
        for block in _with_first(first, blocks):
            for name, rows in _coded(block, kind).items():
                files[name].append(rows)
            if names is not None:
                lines = _id_lines(names, len(block), count)
                begins = id_file.tell() + np.cumsum([0, *map(len, lines[:-1])])
                id_places.append(begins[:, None])
                id_file.writelines(lines)
            count += len(block)
    if names is not None and next(names, None) is not None:
        raise InputError(f"ids: got more than the {count} vectors; give one for each")
    return count, first.shape[1]


def _coded(block: np.ndarray, kind: IndexKind) -> dict[str, np.ndarray]:
    """What is stored of vectors, by the name of the file."""
    if kind == "int8":
        codes, scales = to_int8(block)
        return {"float32": block, "int8": codes, "scales": scales}
    return {"float32": block, "binary": to_bits(block)} if kind == "binary" else {"float32": block}


def _with_first(first: np.ndarray, others: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from others


def _id_lines(names: Iterator[str], wanted: int, first_row: int) -> list[bytes]:
    given = list(islice(names, wanted))
    if len(given) < wanted:
        got = first_row + len(given)
        raise InputError(f"ids: got {got}, fewer than there are vectors; give one for each")
    return [json.dumps(name, ensure_ascii=False).encode() + b"\n" for name in given]
