"""A FAISS index of the vectors of a search index, for programs that read those.

It holds the vectors as they are searched in, of length 1 where cosines are compared, in the order
of the ids, and looks at all of them (IndexFlatIP).
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from modernbert.errors import InputError
from modernbert.files import TEMPORARY_PREFIX
from modernbert.inference.index_folder import IndexManifest
from modernbert.inference.vector_file import read_vectors

FAISS_FILE = "index.faiss"
_BLOCK_ROWS = 16_384


def write_faiss(folder: Path | str) -> Path:
    """Write `index.faiss` into the folder of a search index; returns its path.

    Raises:
        InputError: no search index there, or faiss is not installed.
    """
    folder = Path(folder).expanduser()
    manifest = IndexManifest.read(folder)
    faiss = import_faiss()
    index = faiss.IndexFlatIP(manifest.dim)
    vectors = read_vectors(folder / "float32.npy")
    for start in range(0, len(vectors), _BLOCK_ROWS):
        index.add(vectors[start : start + _BLOCK_ROWS])
    temporary = folder / f"{TEMPORARY_PREFIX}{FAISS_FILE}"
    faiss.write_index(index, str(temporary))
    temporary.replace(folder / FAISS_FILE)
    return folder / FAISS_FILE


def import_faiss() -> Any:
    """The package, which is optional.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module("faiss")
    except ImportError:
        raise InputError("faiss is not installed: pip install 'modernbert[faiss]'") from None
