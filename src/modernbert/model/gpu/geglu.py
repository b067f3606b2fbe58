"""`gelu(a) * b` and its gradients in one pass each.

The compiler joins the gradients of the two halves by computing both for every entry: on an H200
its kernel took 0.53 ms for 65,536 rows of 2 x 1,152, of which reading and writing are 0.2 ms.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1_024


@torch.library.custom_op("modernbert::geglu", mutates_args=())
def geglu(halves: Tensor) -> Tensor:
    """(rows, 2 x width), the halves a and b of each row, to (rows, width)."""
    halves = halves.contiguous()
    rows, width = halves.shape[0], halves.shape[1] // 2
    gated = halves.new_empty(rows, width)
    if grid := _grid(gated):
        with torch.cuda.device_of(halves):
            geglu_forward_kernel[grid](halves, gated, rows * width, WIDTH=width, BLOCK=_BLOCK)
    return gated


@geglu.register_fake
def _(halves: Tensor) -> Tensor:
    return halves.new_empty(halves.shape[0], halves.shape[1] // 2)


@torch.library.custom_op("modernbert::geglu_backward", mutates_args=())
def geglu_backward(d_gated: Tensor, halves: Tensor) -> Tensor:
    """Return the gradients of the halves: (rows, 2 x width)."""
    d_gated, halves = d_gated.contiguous(), halves.contiguous()
    rows, width = d_gated.shape
    d_halves = torch.empty_like(halves)
    if grid := _grid(d_gated):
        sizes = {"WIDTH": width, "BLOCK": _BLOCK}
        with torch.cuda.device_of(halves):
            geglu_backward_kernel[grid](d_gated, halves, d_halves, rows * width, **sizes)
    return d_halves


@geglu_backward.register_fake
def _(d_gated: Tensor, halves: Tensor) -> Tensor:
    del d_gated
    return torch.empty_like(halves, memory_format=torch.contiguous_format)


def _grid(gated: Tensor) -> tuple[int] | None:
    """Blocks of all rows in one line, so that none is half empty; None where there are no rows."""
    return (triton.cdiv(gated.numel(), _BLOCK),) if gated.numel() else None


def _save(ctx, inputs, output) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, d_gated: Tensor) -> Tensor:
    return geglu_backward(d_gated, *ctx.saved_tensors)


geglu.register_autograd(_differentiate, setup_context=_save)


@triton.jit
def _places(num_gated, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Where a program's numbers are in the gated rows and in the rows of halves."""
    flat = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return flat, flat + flat // WIDTH * WIDTH, flat < num_gated


@triton.jit
def geglu_forward_kernel(halves, gated, num_gated, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    flat, first, inside = _places(num_gated, WIDTH, BLOCK)
    a = tl.load(halves + first, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(halves + first + WIDTH, mask=inside, other=0.0).to(tl.float32)
    below = 0.5 * (1.0 + tl.erf(a * 0.7071067811865476))
    tl.store(gated + flat, a * below * b, mask=inside)


@triton.jit
def geglu_backward_kernel(
    d_gated, halves, d_halves, num_gated, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    flat, first, inside = _places(num_gated, WIDTH, BLOCK)
    a = tl.load(halves + first, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(halves + first + WIDTH, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(d_gated + flat, mask=inside, other=0.0).to(tl.float32)
    below = 0.5 * (1.0 + tl.erf(a * 0.7071067811865476))
    density = 0.3989422804014327 * tl.exp(-0.5 * a * a)
    tl.store(d_halves + first, d * b * (below + a * density), mask=inside)
    tl.store(d_halves + first + WIDTH, d * a * below, mask=inside)
