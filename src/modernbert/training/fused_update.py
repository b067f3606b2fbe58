"""Triton kernels for the steps of all tensors of a group on a GPU: two launches, nine passes.

The rule is that of `StableAdamW`. The first kernel renews the averages and leaves the surprise of
each block; the second changes the weights. In between, the surprises are added up for each tensor,
over processes too where it is sharded. Tensors are found by their addresses, in a table that is
written for each step, as gradients are elsewhere each time. Nothing is read back to the host.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2_048
NUM_WARPS = 8


def suits(updates: Sequence[Any]) -> bool:
    """Return whether the kernels take such tensors."""
    return all(
        values.is_contiguous() and values.dtype is torch.float32
        for each in updates
        for values in _tensors(each)
    )


def update(
    updates: Sequence[Any],
    num_values: Sequence[int],
    taken: Tensor | None,
    add_up: Callable[[Tensor], Tensor],
) -> None:
    """Change weights and averages in place, unless the step is not taken.

    Args:
        updates: One `TensorUpdate` of the optimizer for each tensor, which must suit. They are on
            one device and share everything but their tensors.
        num_values: How many numbers each whole tensor has, of which this process may have a part.
        taken: A boolean on the device; None if the step is taken.
        add_up: Given this process's sums for each tensor, those over all processes.
    """
    first = updates[0]
    device, num_tensors = first.weight.device, len(updates)
    counts = tuple(each.weight.numel() for each in updates)
    table, blocks = _table(updates, counts, num_values, device), _blocks(counts, device)
    flag = torch.ones((), dtype=torch.bool, device=device) if taken is None else taken
    surprises = torch.empty(blocks.shape[1], device=device)
    where = (table, blocks, flag, num_tensors, len(surprises))
    aligned = not any(
        x.data_ptr() % 16 or x.numel() % 4 for each in updates for x in _tensors(each)
    )
    sizes = {"BLOCK": BLOCK, "ALIGNED": aligned, "num_warps": NUM_WARPS}
    with torch.cuda.device_of(first.weight):
        if len(surprises):
            shares = (first.new_mean, first.new_square, first.eps)
            average_kernel[(len(surprises),)](*where, surprises, *shares, **sizes)
        scales = torch.ones(num_tensors, device=device)
        if first.is_clipped:  # even without a block here, as the other processes wait for the sums
            scales = _scales(surprises, table, add_up)
        if len(surprises):
            rates = (first.eps, first.rate, first.decay)
            change_kernel[(len(surprises),)](*where, scales, *rates, **sizes)


def _tensors(each: Any) -> tuple[Tensor, ...]:
    return each.weight, each.gradient, each.mean, each.square


def _table(
    updates: Sequence[Any],
    counts: Sequence[int],
    num_values: Sequence[int],
    device: torch.device,
) -> Tensor:
    """(6, num_tensors): four addresses, how many numbers are here, and how many there are."""
    addresses = zip(*([x.data_ptr() for x in _tensors(each)] for each in updates), strict=True)
    rows = [*map(list, addresses), list(counts), list(num_values)]
    table = torch.tensor(rows, dtype=torch.int64, pin_memory=device.type == "cuda")
    return table.to(device, non_blocking=True)


@lru_cache(maxsize=16)
def _blocks(counts: tuple[int, ...], device: torch.device) -> Tensor:
    """The tensor of each block, and its place among that tensor's: (2, num_blocks) int32."""
    numbers = torch.tensor([-(-count // BLOCK) for count in counts])
    tensors = torch.arange(len(counts)).repeat_interleave(numbers)
    places = torch.arange(len(tensors)) - (numbers.cumsum(0) - numbers)[tensors]
    return torch.stack([tensors, places]).int().to(device)


def _scales(surprises: Tensor, table: Tensor, add_up: Callable[[Tensor], Tensor]) -> Tensor:
    """What each tensor's rate is multiplied by: 1 / max(1, root of the mean surprise)."""
    counts, num_values = table[4], table[5]
    sums = torch.zeros(len(counts), device=surprises.device)
    if len(surprises):  # on CUDA, torch divides by their number
        num_blocks = (counts + BLOCK - 1) // BLOCK
        sums = torch.segment_reduce(surprises, "sum", lengths=num_blocks, unsafe=True)
    return (add_up(sums) / num_values.clamp(min=1)).sqrt().clamp(min=1).reciprocal()


@triton.jit
def _tensor(table, row, num_tensors, tensor, ALIGNED: tl.constexpr):
    address = tl.load(table + row * num_tensors + tensor).to(tl.pointer_type(tl.float32))
    if ALIGNED:  # in bytes, so that four numbers are read at once
        address = tl.multiple_of(address, 16)
    return address


@triton.jit
def _place(
    table, blocks, taken, num_tensors, num_blocks, BLOCK: tl.constexpr, ALIGNED: tl.constexpr
):
    """A program's tensor, its numbers in it, and which of them there are to change."""
    block = tl.program_id(0)
    tensor = tl.load(blocks + block)
    at = tl.load(blocks + num_blocks + block).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    count = tl.load(table + 4 * num_tensors + tensor)
    if ALIGNED:
        count = tl.multiple_of(count, 4)
    count = tl.where(tl.load(taken) != 0, count, 0)
    return tensor, at, at < count


@triton.jit
def average_kernel(
    table, blocks, taken, num_tensors, num_blocks, surprises, new_mean, new_square, eps,
    BLOCK: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    tensor, at, inside = _place(table, blocks, taken, num_tensors, num_blocks, BLOCK, ALIGNED)
    means = _tensor(table, 2, num_tensors, tensor, ALIGNED) + at
    squares = _tensor(table, 3, num_tensors, tensor, ALIGNED) + at
    gradients = _tensor(table, 1, num_tensors, tensor, ALIGNED) + at
    gradient = tl.load(gradients, mask=inside, other=0.0)
    mean = tl.load(means, mask=inside, other=0.0)
    square = tl.load(squares, mask=inside, other=0.0)
    mean += new_mean * (gradient - mean)
    square += new_square * (gradient * gradient - square)
    tl.store(means, mean, mask=inside)
    tl.store(squares, square, mask=inside)
    surprise = gradient / tl.maximum(tl.sqrt(square), eps)
    tl.store(surprises + tl.program_id(0), tl.sum(surprise * surprise, 0))


@triton.jit
def change_kernel(
    table, blocks, taken, num_tensors, num_blocks, scales, eps, rate, decay,
    BLOCK: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    tensor, at, inside = _place(table, blocks, taken, num_tensors, num_blocks, BLOCK, ALIGNED)
    weights = _tensor(table, 0, num_tensors, tensor, ALIGNED) + at
    mean = tl.load(_tensor(table, 2, num_tensors, tensor, ALIGNED) + at, mask=inside, other=0.0)
    square = tl.load(_tensor(table, 3, num_tensors, tensor, ALIGNED) + at, mask=inside, other=0.0)
    weight = tl.load(weights, mask=inside, other=0.0)
    change = mean / (tl.sqrt(square) + eps) + decay * weight
    tl.store(weights, weight - rate * tl.load(scales + tensor) * change, mask=inside)
