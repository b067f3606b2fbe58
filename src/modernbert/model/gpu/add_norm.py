"""Residual add and LayerNorm in one pass, forward and backward.

The residual stream is float32 and is read and written once. What is added to it, and what comes out
of the norm, is half precision. In the backward pass each program sums the weight's gradients of its
own rows, so the stream and the gradients are read once there too, and nothing is added in a varying
order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_PROGRAMS = 264  # two on each of an H200's multiprocessors


@torch.library.custom_op("modernbert::add_norm", mutates_args=())
def add_norm(
    hidden: Tensor, added: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`hidden + added`, and the same normalized.

    Args:
        hidden: (rows, width) float32.
        added: (rows, width) float16 or bfloat16.
        weight: (width,) float32: the norm's.
        eps: The norm's epsilon.

    Returns:
        The sum, (rows, width) float32; the same normalized, of the type of `added`; and each row's
        mean and 1 / deviation, (rows,) float32.
    """
    hidden, added = hidden.contiguous(), added.contiguous()
    total, normed = torch.empty_like(hidden), torch.empty_like(added)
    mean, scale = (hidden.new_empty(len(hidden)) for _ in range(2))
    if len(hidden):
        width = hidden.shape[1]
        with torch.cuda.device_of(hidden):
            add_norm_forward_kernel[(len(hidden),)](
                hidden, added, weight, total, normed, mean, scale, eps,
                WIDTH=width, BLOCK=triton.next_power_of_2(width),
            )  # fmt: skip
    return total, normed, mean, scale


@add_norm.register_fake
def _(
    hidden: Tensor, added: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    del weight, eps
    total, normed = (
        torch.empty_like(each, memory_format=torch.contiguous_format) for each in (hidden, added)
    )
    return total, normed, hidden.new_empty(len(hidden)), hidden.new_empty(len(hidden))


@torch.library.custom_op("modernbert::add_norm_backward", mutates_args=())
def add_norm_backward(
    d_total: Tensor, d_normed: Tensor, total: Tensor, weight: Tensor, mean: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the stream (float32), of what is added (half) and of the weight."""
    d_total, d_normed = d_total.contiguous(), d_normed.contiguous()
    d_hidden, d_added = torch.empty_like(total), torch.empty_like(d_normed)
    rows, width = total.shape
    programs = min(rows, _PROGRAMS)
    d_weights = weight.new_zeros(programs, width)
    if rows:
        with torch.cuda.device_of(total):
            add_norm_backward_kernel[(programs,)](
                d_total, d_normed, total, weight, mean, scale, d_hidden, d_added, d_weights,
                rows, programs, WIDTH=width, BLOCK=triton.next_power_of_2(width),
            )  # fmt: skip
    return d_hidden, d_added, d_weights.sum(0)


@add_norm_backward.register_fake
def _(
    d_total: Tensor, d_normed: Tensor, total: Tensor, weight: Tensor, mean: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    del d_total, mean, scale
    d_added = torch.empty_like(d_normed, memory_format=torch.contiguous_format)
    return torch.empty_like(total), d_added, torch.empty_like(weight)


def _save(ctx, inputs, output) -> None:
    total, _, mean, scale = output
    ctx.save_for_backward(total, inputs[2], mean, scale)
    ctx.mark_non_differentiable(mean, scale)


def _differentiate(ctx, d_total: Tensor, d_normed: Tensor, *_):
    return *add_norm_backward(d_total, d_normed, *ctx.saved_tensors), None


add_norm.register_autograd(_differentiate, setup_context=_save)


@triton.jit
def add_norm_forward_kernel(
    hidden, added, weight, total, normed, mean, scale, eps,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    at = row * WIDTH + columns
    x = tl.load(hidden + at, mask=inside, other=0.0)
    x += tl.load(added + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(total + at, x, mask=inside)
    middle = tl.sum(x, 0) / WIDTH
    apart = tl.where(inside, x - middle, 0.0)
    one_over = 1.0 / tl.sqrt(tl.sum(apart * apart, 0) / WIDTH + eps)
    gain = tl.load(weight + columns, mask=inside, other=0.0)
    tl.store(normed + at, apart * one_over * gain, mask=inside)
    tl.store(mean + row, middle)
    tl.store(scale + row, one_over)


@triton.jit
def add_norm_backward_kernel(
    d_total, d_normed, total, weight, mean, scale, d_hidden, d_added, d_weights,
    rows, programs, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    gain = tl.load(weight + columns, mask=inside, other=0.0)
    d_gain = tl.zeros((BLOCK,), tl.float32)
    at = program.to(tl.int64) * WIDTH + columns
    for row in range(program, rows, programs):
        x = tl.load(total + at, mask=inside, other=0.0)
        one_over = tl.load(scale + row)
        even = tl.where(inside, (x - tl.load(mean + row)) * one_over, 0.0)
        d = tl.load(d_normed + at, mask=inside, other=0.0).to(tl.float32)
        d_gain += d * even
        d *= gain
        common = tl.sum(d, 0) / WIDTH
        along = tl.sum(d * even, 0) / WIDTH
        d = (d - common - even * along) * one_over
        d += tl.load(d_total + at, mask=inside, other=0.0)
        tl.store(d_hidden + at, d, mask=inside)
        tl.store(d_added + at, d, mask=inside)
        at += programs * WIDTH
    tl.store(d_weights + program.to(tl.int64) * WIDTH + columns, d_gain, mask=inside)
