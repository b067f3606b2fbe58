"""How a module is computed: its precision, and whether it is spread, recomputed and compiled.

Under autocast, matrix products are computed in bfloat16. The residual stream and the norms on it
stay float32, on CUDA and on the CPU. Only CUDA's autocast widens softmax and the loss; on the CPU
they keep the dtype of their input, so a loss takes `logits.float()`.

A module is prepared in place and its parameters keep their names, so checkpoints do not depend on
how it is computed. Apart from rounding, none of this changes what is trained. Random numbers
depend on nothing but the step, and an evaluation leaves no trace.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modernbert.devices import compile_layer, has_float8
from modernbert.errors import SettingsError
from modernbert.settings import TrainingPrecision
from modernbert.training.distributed import ALONE, Group
from modernbert.training.tensors import whole
from modernbert.training.training_settings import ComputationSettings


def autocast(device: torch.device | str, precision: TrainingPrecision) -> torch.autocast:
    """Return a context in which `device` computes in `precision`.

    Raises:
        SettingsError: Bfloat16 on a CUDA device that lacks it, or float8 on any that does.
    """
    device = torch.device(device)
    dtype = compute_dtype(device, precision)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16)


def compute_dtype(device: torch.device | str, precision: TrainingPrecision) -> torch.dtype:
    """Return torch.float32 or torch.bfloat16; `auto` is bfloat16 if the device has units for it.

    Raises:
        SettingsError: Bfloat16 on a CUDA device that lacks it, or float8 on any that does.
    """
    device = torch.device(device)
    if precision == "float32":
        return torch.float32
    if precision == "float8" and not has_float8(device):
        raise SettingsError(
            f'precision: got "float8", which {device} lacks: it needs an NVIDIA GPU since Ada; '
            'use "bfloat16" or "auto"'
        )
    fast = _has_bfloat16_units(device)
    if precision == "bfloat16" and device.type == "cuda" and not fast:
        raise SettingsError(
            f'precision: got "bfloat16", which {torch.cuda.get_device_name(device)} lacks; '
            'use "float32" or "auto"'
        )
    return torch.bfloat16 if fast or precision in ("bfloat16", "float8") else torch.float32


def _has_bfloat16_units(device: torch.device) -> bool:
    """Return whether bfloat16 is faster on a device, and not merely emulated."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


T = TypeVar("T")


class Computation:
    """How a module is computed if each process of a group has all of it.

    Each process computes the gradients of its share of a step, and `reduce` adds them up.
    """

    def __init__(self, group: Group = ALONE) -> None:
        self.group = group

    def run(self, function: Callable[[], T]) -> T:
        """Call a function that uses the module, in all processes."""
        return function()

    def before_backward(self, *, is_last: bool) -> None:
        """Prepare for a backward pass of a step; `is_last` says whether it is the last."""

    def reduce(self, module: nn.Module, figures: Tensor) -> Tensor:
        """Sum the gradients and some figures over all processes; return the norm of the gradients.

        With several processes, a parameter without a gradient gets one of zeros, because it may
        have one in another process.
        """
        trainable = [p for p in module.parameters() if p.requires_grad]
        if self.group.size > 1:
            for parameter in trainable:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in trainable if p.grad is not None]
        self.group.sum([*gradients, figures])
        return torch.nn.utils.get_total_norm(gradients)


class ShardedComputation(Computation):
    """How a sharded module is computed: FSDP2 gathers each layer just before it is used.

    The loss of every micro-batch must depend on the module, as all processes reduce together.
    """

    def __init__(self, module: nn.Module, layers: Sequence[nn.Module], group: Group) -> None:
        super().__init__(group)
        from torch.distributed.device_mesh import init_device_mesh  # a second, only where needed
        from torch.distributed.fsdp import fully_shard

        root = _Root(module)
        mesh = init_device_mesh(group.device.type, (group.size,))
        for part in (*layers, root):
            sharded: Any = fully_shard(part, mesh=mesh)
            # The trainer divides by the targets of all processes; so gradients are sums.
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)
        self._root: Any = root

    def run(self, function: Callable[[], T]) -> T:
        """Call a function with the parameters outside the layers gathered."""
        result: T = self._root(function)
        if not torch.is_grad_enabled():
            self._root.reshard()  # which otherwise the backward does
        return result

    def before_backward(self, *, is_last: bool) -> None:
        """Keep gradients in place until the last backward pass of a step."""
        self._root.set_requires_gradient_sync(is_last)

    def reduce(self, module: nn.Module, figures: Tensor) -> Tensor:
        """Sum the figures; the gradients are sums already, and their norm is over all shards."""
        self.group.sum([figures])
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        return whole(torch.nn.utils.get_total_norm(gradients))


class _Root(nn.Module):
    """The module as FSDP2 sees it; its forward is whatever is done with the module.

    A task may therefore call any method of the module and not only its forward.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


def prepare(
    module: nn.Module, layers: Sequence[nn.Module], settings: ComputationSettings, group: Group
) -> Computation:
    """Prepare a module for training; call this before you make an optimizer of its parameters.

    Args:
        module: The module to train.
        layers: Its large parts of one kind, in the order of their use.
        settings: Whether to recompute, compile and shard.
        group: The processes that train together.

    Returns:
        How the processes compute the module together.
    """
    for layer in layers:
        if settings.recompute:
            recompute(layer)
        if settings.compile:
            compile_layer(layer)
    if settings.sharding == "full" and group.size > 1:
        return ShardedComputation(module, layers, group)
    return Computation(group)


def recompute(layer: nn.Module) -> None:
    """Keep no activations inside a layer; the backward pass computes its forward pass again."""
    layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's generators for one step, whatever was drawn before it.

    Args:
        seed: The seed of the run.
        step: The number of the step.
        rank: The rank of this process; each process draws its own numbers.
    """
    entropy = [seed, step, rank] if rank else [seed, step]
    (state,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    torch.manual_seed(int(state))


@contextmanager
def undisturbed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluate without gradients in here; modes and random states are put back afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        devices = [device] if device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
