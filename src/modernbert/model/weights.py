"""The tensors of a model folder: first what there is, told by the headers, then their values.

One safetensors file, or several with an index beside them. Pickles are never read.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from modernbert.errors import ModelFolderError
from modernbert.json_files import read_object
from modernbert.reading import POINTER_REMEDY, is_pointer

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_FLOATS = ("F32", "F16", "BF16", "F64")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class TensorHeader(NamedTuple):
    """Where a tensor stands and what shape it has."""

    file: Path
    name: str
    shape: tuple[int, ...]


def read_headers(folder: Path) -> list[TensorHeader]:
    """Return all tensors of a model folder; no value is read.

    Raises:
        ModelFolderError: No weights, weights in pickles alone, or a file that is damaged.
    """
    return [header for file in _weight_files(folder) for header in _headers_of(file)]


def read_tensors(headers: Mapping[str, TensorHeader]) -> dict[str, Tensor]:
    """Return the tensors themselves under the given names, in float32 and memory of their own.

    Raises:
        ModelFolderError: A file that is damaged.
    """
    tensors = {}
    for file in sorted({header.file for header in headers.values()}):
        with _opened(file) as opened:
            for name, header in headers.items():
                if header.file == file:
                    stored = opened.get_tensor(header.name)
                    # A copy: the file may be replaced while the model lives.
                    tensors[name] = stored.to(torch.float32, copy=True)
    return tensors


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the folder's one safetensors file.

    Raises:
        OSError: The file cannot be written.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_safetensors(folder / WEIGHTS_FILE, stored)


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file that whoever may read its neighbours may read too.

    Args:
        path: The file to write.
        tensors: On the CPU, contiguous, in memory of their own.

    Raises:
        OSError: The file cannot be written.
    """
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from None
    path.chmod(mode)  # the library, from its version 0.8 on, lets the owner alone read it


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        return _indexed_files(folder / INDEX_FILE)
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelFolderError(
            f"{folder}: has its weights in {pickles[0]}, which can run code and is never read; "
            f"convert it to {WEIGHTS_FILE} with the library that wrote it"
        )
    raise ModelFolderError(f"{folder}: holds no weights; expected a {WEIGHTS_FILE}")


def _indexed_files(index: Path) -> list[Path]:
    try:
        names = sorted(set(read_object(index)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelFolderError(f"{index}: not a readable index of weights: {error!r}") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelFolderError(f"{index}: names {name!r}, expected a file next to it")
        if not (index.parent / name).is_file():
            raise ModelFolderError(f"{index}: names {name}, which does not exist")
    return [index.parent / name for name in names]


def _headers_of(file: Path) -> Iterator[TensorHeader]:
    with _opened(file) as opened:
        for name in sorted(opened.keys()):
            header = opened.get_slice(name)
            if header.get_dtype() not in _FLOATS:
                raise ModelFolderError(
                    f"{file}: {name} is {header.get_dtype()}, expected one of {', '.join(_FLOATS)}"
                )
            yield TensorHeader(file, name, tuple(header.get_shape()))


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A safetensors file opened to read; what is wrong with it is told by name."""
    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except MemoryError as error:
        raise ModelFolderError(f"{file}: does not fit into memory: {error}") from None
    except (OSError, SafetensorError) as error:
        with suppress(OSError), file.open("rb") as content:
            if is_pointer(content.read(64)):
                raise ModelFolderError(f"{file}: {POINTER_REMEDY}") from None
        raise ModelFolderError(f"{file}: damaged or not a safetensors file: {error}") from None
