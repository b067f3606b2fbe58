"""Rotary positions of queries and keys in one pass; the gradients are turned back by the same.

The compiler makes as good a kernel, so this one is for layers that are not compiled, where torch
would write a dozen intermediate results.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 32  # so many that each thread reads 16 bytes at once


@torch.library.custom_op("modernbert::turn", mutates_args=())
def turn(heads: Tensor, cos: Tensor, sin: Tensor, direction: float) -> Tensor:
    """Turn heads by their positions, or back.

    Args:
        heads: (rows, num_heads, head_size) float16 or bfloat16; the heads of a row lie one after
            the other, the rows may lie further apart.
        cos: (rows, head_size / 2) float32.
        sin: As `cos`.
        direction: 1, or -1 for the gradients.
    """
    rows, num_heads, size = heads.shape
    if heads.stride()[1:] != (size, 1):
        heads = heads.contiguous()
    turned = torch.empty_like(heads, memory_format=torch.contiguous_format)
    if rows:
        with torch.cuda.device_of(heads):
            turn_kernel[(triton.cdiv(rows, _ROWS), num_heads)](
                heads, cos.contiguous(), sin.contiguous(), turned, rows,
                heads.stride(0), turned.stride(0), direction, HALF_SIZE=size // 2, ROWS=_ROWS,
            )  # fmt: skip
    return turned


@turn.register_fake
def _(heads: Tensor, cos: Tensor, sin: Tensor, direction: float) -> Tensor:
    del cos, sin, direction
    return torch.empty_like(heads, memory_format=torch.contiguous_format)


def _save(ctx, inputs, output) -> None:
    del output
    _, cos, sin, ctx.direction = inputs
    ctx.save_for_backward(cos, sin)


def _differentiate(ctx, d_turned: Tensor):
    return turn(d_turned, *ctx.saved_tensors, -ctx.direction), None, None, None


turn.register_autograd(_differentiate, setup_context=_save)


@triton.jit
def turn_kernel(
    heads, cos, sin, turned, num_rows, heads_stride, turned_stride, direction,
    HALF_SIZE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    pairs = tl.arange(0, HALF_SIZE)
    inside = (rows < num_rows)[:, None]
    angles = rows[:, None] * HALF_SIZE + pairs[None, :]
    c = tl.load(cos + angles, mask=inside, other=0.0)
    s = tl.load(sin + angles, mask=inside, other=0.0) * direction
    within = tl.program_id(1) * (2 * HALF_SIZE) + pairs[None, :]
    first_at = heads + rows[:, None] * heads_stride + within
    first = tl.load(first_at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(first_at + HALF_SIZE, mask=inside, other=0.0).to(tl.float32)
    to = turned + rows[:, None] * turned_stride + within
    tl.store(to, first * c - second * s, mask=inside)
    tl.store(to + HALF_SIZE, second * c + first * s, mask=inside)
