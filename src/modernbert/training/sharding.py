"""Tensors whose values may be spread over processes: parts, wholes, and how they are filled.

A parameter that FSDP2 shards is a `DTensor`: its shape and its name are those of the whole. Any
other tensor is whole in every process, and these functions give it back as it is.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modernbert.training.distributed import Group


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a part of the tensor's values."""
    return hasattr(tensor, "full_tensor")  # not by its class, which takes a second to import


def local(tensor: Any) -> Tensor:
    """This process's part of a tensor: all of it unless it is sharded."""
    part: Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return part


def whole(tensor: Any) -> Tensor:
    """All values of a tensor; where it is sharded, all processes must ask for it."""
    values: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor
    return values


def sum_over_shards(values: Tensor, like: Any) -> Tensor:
    """Replace values by their sums over the processes among which `like` is spread."""
    torch.distributed.all_reduce(values, group=like.device_mesh.get_group())
    return values


@torch.no_grad()
def gathered(tensors: Mapping[str, Tensor], group: Group) -> dict[str, Tensor]:
    """Tensors whole, contiguous and on the host, in process 0 alone; all processes must ask."""
    found = {}
    for name, tensor in tensors.items():
        values = whole(tensor.detach())  # one at a time, and let go where it is not wanted
        if group.is_first:
            found[name] = values.cpu().contiguous()
    return found


def fill(target: Any, source: Tensor | None, group: Group) -> None:
    """Give a tensor in all processes the values that process 0 brings; the others bring None.

    Args:
        target: Sharded or whole, of the shape and format of the source.
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
