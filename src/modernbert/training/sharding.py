"""How a module's layers are computed: kept in shards (FSDP2), computed twice, compiled.

All of it is done in place, layer by layer, and leaves the names of the parameters as they are, so
a checkpoint does not know of it. A parameter that is sharded is a `DTensor`: its values are spread
over the processes, its shape and its name are those of the whole.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modernbert.training.distributed import Group

Sharding = Literal["none", "full"]


class Computation(Protocol):
    """Calls a function of the module so that its parameters are there."""

    def __call__(self, function: Callable[[], Any]) -> Any: ...

    def last_micro_batch(self, is_last: bool) -> None:
        """Tell whether the gradients are to be reduced with the next backward."""


class Whole:
    """The computation of a module that every process has as a whole."""

    def __call__(self, function: Callable[[], Any]) -> Any:
        """What the function gives."""
        return function()

    def last_micro_batch(self, is_last: bool) -> None:
        """Nothing: the trainer reduces the gradients."""


class Sharded(nn.Module):
    """The computation of a module in shards: FSDP2 gathers each layer just before its use.

    The module is a part of this one, whose forward is whatever is to be computed with it. So a
    task may call any methods of the module, not its forward alone.
    """

    def __init__(self, module: nn.Module, layers: Sequence[nn.Module], group: Group) -> None:
        super().__init__()
        from torch.distributed.device_mesh import init_device_mesh  # a second, only where needed
        from torch.distributed.fsdp import fully_shard

        self.module = module
        mesh = init_device_mesh(group.device.type, (group.size,))
        for part in (*layers, self):
            sharded: Any = fully_shard(part, mesh=mesh)
            # The trainer divides by the targets of all processes; so gradients are sums.
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)

    def forward(self, function: Callable[[], Any]) -> Any:
        """What the function gives, with the parameters outside the layers gathered."""
        return function()

    def last_micro_batch(self, is_last: bool) -> None:
        """Gradients stay where they are until the backward of a step's last micro-batch."""
        root: Any = self  # FSDP2 has made a class of its own of this one's
        root.set_requires_gradient_sync(is_last)


def recompute(layer: nn.Module) -> None:
    """Keep no activations inside a layer: its forward is done again in the backward."""
    layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def compiled(layer: nn.Module) -> None:
    """Compile a layer's forward at its first use, for batches of any length."""
    layer.forward = torch.compile(layer.forward, dynamic=True)


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a part of the tensor's values."""
    return hasattr(tensor, "full_tensor")


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


def fill(target: Any, source: Tensor | None, group: Group) -> None:
    """Give a tensor in all processes the values that process 0 brings; the others bring None.

    target: sharded or whole, of the shape and format of the source.
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
    target.copy_(distribute_tensor(values, target.device_mesh, target.placements))
