"""Tensors of a run: spread over processes or whole, and written with a hash of what was meant.

A parameter that FSDP2 shards is a `DTensor`: its shape and its name are those of the whole. Any
other tensor is whole in every process, and these functions give it back as it is.

The library's own writer holds the interpreter for as long as it writes; here a thread that writes
leaves the others alone.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modernbert.training.distributed import Group


def is_sharded(tensor: Tensor) -> bool:
    """Return whether this process holds only a part of the tensor's values."""
    return hasattr(tensor, "full_tensor")  # not by its class, which takes a second to import


def local(tensor: Any) -> Tensor:
    """Return this process's part of a tensor: all of it unless it is sharded."""
    part: Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return part


def whole(tensor: Any) -> Tensor:
    """Return all values of a tensor; where it is sharded, all processes must ask for it."""
    values: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor
    return values


def own_part(values: Tensor, like: Any) -> Tensor:
    """Return this process's part of values that all have whole, spread as `like` is."""
    if not is_sharded(like):
        return values
    from torch.distributed.tensor import DTensor, Replicate

    replicated = DTensor.from_local(values, like.device_mesh, [Replicate()], run_check=False)
    return local(replicated.redistribute(placements=like.placements))


def sum_over_shards(values: Tensor, like: Any) -> Tensor:
    """Replace values by their sums over the processes among which `like` is spread, if it is."""
    if not is_sharded(like):
        return values
    torch.distributed.all_reduce(values, group=like.device_mesh.get_group())
    return values


@torch.no_grad()
def gathered(tensors: Mapping[str, Tensor], group: Group) -> dict[str, Tensor]:
    """Gather whole tensors on the host of process 0, contiguous; all processes must ask."""
    found = {}
    for name, tensor in tensors.items():
        values = whole(tensor.detach())  # one at a time, and let go where it is not wanted
        if group.is_first:
            found[name] = values.cpu().contiguous()
    return found


def fill(target: Any, source: Tensor | None, group: Group) -> None:
    """Copy the values that process 0 passes into a tensor of every process.

    Args:
        target: The tensor to fill, sharded or whole, with the source's shape and dtype.
        source: The values in process 0, None in the others.
        group: The processes that train together.
    """
    if not is_sharded(target):
        if source is not None:
            target.copy_(source)
        group.broadcast(target)
        return
    from torch.distributed.tensor import distribute_tensor

    if source is None:
        source = torch.empty(target.shape, dtype=target.dtype)
    values = source.to(group.device)
    with group.watched():
        target.copy_(distribute_tensor(values, target.device_mesh, target.placements))


_FORMATS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT = 8
_PIECE_BYTES = 1 << 24  # written and hashed while it is in the cache


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write tensors to a new safetensors file.

    Args:
        path: The new file.
        tensors: Contiguous tensors on the CPU, by their names.

    Returns:
        The file's `bytes` and `sha256`, computed from what was to be written.

    Raises:
        OSError: The disk is full or fails.
    """
    digest = hashlib.sha256()
    # The widest formats first, so that every tensor begins at a multiple of its size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    with path.open("wb", buffering=0) as file:
        for content in (_header(tensors, names), *(_bytes_of(tensors[name]) for name in names)):
            for start in range(0, len(content), _PIECE_BYTES):
                piece = content[start : start + _PIECE_BYTES]
                digest.update(piece)
                _write(file, piece)
        num_bytes = file.tell()
    return {"bytes": num_bytes, "sha256": digest.hexdigest()}


def _header(tensors: Mapping[str, Tensor], names: list[str]) -> memoryview:
    """The length of what follows in eight bytes, and where each tensor lies."""
    entries, end = {}, 0
    for name in names:
        start, end = end, end + tensors[name].nbytes
        entries[name] = {
            "dtype": _FORMATS[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return memoryview(len(text).to_bytes(8, "little") + text)


def _bytes_of(tensor: Tensor) -> memoryview:
    if not tensor.numel():
        return memoryview(b"")
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _write(file: Any, piece: memoryview) -> None:
    """All of a piece: a nearly full disk takes a part of it first, then says so."""
    while len(piece):
        piece = piece[file.write(piece) :]
