"""Attention within a window, forward and backward.

The kernels of `varlen` are made for long rows of keys: in a local layer they took as long as in a
global one of 1,024 tokens. Here a program takes some rows of one head and visits only the keys that
are near them (P section 2.1.2). Borders of sequences are two numbers per
row, so a program may contain rows of several sequences, and no row is padding. In the backward
pass a program computes the gradients of its own rows, first as queries and then as keys. Nothing is
added in a varying order, so the gradients are the same each time.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_FORWARD = {"ROWS": 64, "COLUMNS": 32, "num_warps": 4, "num_stages": 3}
_BACKWARD = {"ROWS": 64, "COLUMNS": 64, "num_warps": 4, "num_stages": 1}


@torch.library.custom_op("modernbert::local_attention", mutates_args=())
def local_attention(
    query: Tensor, key: Tensor, value: Tensor, firsts: Tensor, ends: Tensor, back: int, ahead: int
) -> tuple[Tensor, Tensor]:
    """Let every token attend to itself and to the nearest ones of its own sequence.

    Args:
        query: (total_tokens, num_heads, head_size), rotated already.
        key: As `query`.
        value: As `query`.
        firsts: (total_tokens,) int32: the rows where each token's sequence begins and ends.
        ends: As `firsts`.
        back: How many tokens before it a token sees.
        ahead: How many after it; none in a causal layer.

    Returns:
        The result, (total_tokens, num_heads, head_size), and the logarithm to the base of 2 of each
        softmax's sum, (num_heads, total_tokens) float32.
    """
    query, key, value = (_by_rows(x) for x in (query, key, value))
    total, num_heads, size = query.shape
    attended = torch.empty_like(query, memory_format=torch.contiguous_format)
    sums = torch.empty(num_heads, total, dtype=torch.float32, device=query.device)
    with torch.cuda.device_of(query):
        local_attention_forward_kernel[num_heads, triton.cdiv(total, _FORWARD["ROWS"])](
            query, key, value, firsts, ends, attended, sums, total, _scale(size),
            query.stride(0), key.stride(0), value.stride(0), attended.stride(0),
            SIZE=size, BACK=back, AHEAD=ahead, **_FORWARD,
        )  # fmt: skip
    return attended, sums


@local_attention.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, firsts: Tensor, ends: Tensor, back: int, ahead: int
) -> tuple[Tensor, Tensor]:
    del key, value, firsts, ends, back, ahead
    sums = query.new_empty(query.shape[1], query.shape[0], dtype=torch.float32)
    return torch.empty_like(query, memory_format=torch.contiguous_format), sums


@torch.library.custom_op("modernbert::local_attention_backward", mutates_args=())
def local_attention_backward(
    d_attended: Tensor,
    attended: Tensor,
    sums: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    firsts: Tensor,
    ends: Tensor,
    back: int,
    ahead: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value: (total_tokens, num_heads, head_size) each."""
    d_attended, query, key, value = (_by_rows(x) for x in (d_attended, query, key, value))
    total, num_heads, size = query.shape
    d_query, d_key, d_value = (
        torch.empty_like(attended, memory_format=torch.contiguous_format) for _ in range(3)
    )
    with torch.cuda.device_of(query):
        local_attention_backward_kernel[num_heads, triton.cdiv(total, _BACKWARD["ROWS"])](
            d_attended, attended, sums, query, key, value, firsts, ends, d_query, d_key, d_value,
            total, _scale(size),
            query.stride(0), key.stride(0), value.stride(0),
            d_attended.stride(0), attended.stride(0),
            SIZE=size, BACK=back, AHEAD=ahead, **_BACKWARD,
        )  # fmt: skip
    return d_query, d_key, d_value


@local_attention_backward.register_fake
def _(
    d_attended: Tensor,
    attended: Tensor,
    sums: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    firsts: Tensor,
    ends: Tensor,
    back: int,
    ahead: int,
) -> tuple[Tensor, Tensor, Tensor]:
    del d_attended, sums, query, key, value, firsts, ends, back, ahead
    one, two, three = (
        torch.empty_like(attended, memory_format=torch.contiguous_format) for _ in range(3)
    )
    return one, two, three


def _save(ctx, inputs, output) -> None:
    *tensors, ctx.back, ctx.ahead = inputs
    ctx.save_for_backward(*output, *tensors)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, d_attended: Tensor, _):
    gradients = local_attention_backward(d_attended, *ctx.saved_tensors, ctx.back, ctx.ahead)
    return *gradients, None, None, None, None


local_attention.register_autograd(_differentiate, setup_context=_save)


def _scale(head_size: int) -> float:
    """Of scores, for powers of 2."""
    return head_size**-0.5 * math.log2(math.e)


def _by_rows(heads: Tensor) -> Tensor:
    """The same where a row's heads lie one after the other, as those of a joint product do."""
    size = heads.shape[2]
    return heads if heads.stride()[1:] == (size, 1) else heads.contiguous()


# Rows are counted from the program's first, so that they are small numbers; only that one is large.


@triton.jit
def _load(heads, rows, inside, stride, SIZE: tl.constexpr):
    at = heads + rows[:, None] * stride + tl.arange(0, SIZE)[None, :]
    return tl.load(at, mask=inside[:, None], other=0.0)


@triton.jit
def _sequences(firsts, ends, begin, rows, inside, total):
    """Where each row's sequence begins and ends."""
    first = tl.load(firsts + begin + rows, mask=inside, other=total) - begin.to(tl.int32)
    end = tl.load(ends + begin + rows, mask=inside, other=0) - begin.to(tl.int32)
    return first, end


@triton.jit
def _reach(first, end, ROWS: tl.constexpr, BACK: tl.constexpr, AHEAD: tl.constexpr):
    """The rows that any row sees, low up to high."""
    return tl.maximum(tl.min(first, 0), -BACK), tl.minimum(tl.max(end, 0), ROWS + AHEAD)


@triton.jit
def _sees(rows, others, first, end, BACK: tl.constexpr, AHEAD: tl.constexpr):
    """(ROWS, COLUMNS): whether another one is of a row's sequence and near."""
    apart = rows[:, None] - others[None, :]
    near = (apart <= BACK) & (apart >= -AHEAD)
    return near & (others[None, :] >= first[:, None]) & (others[None, :] < end[:, None])


@triton.jit
def local_attention_forward_kernel(
    query, key, value, firsts, ends, attended, sums, total, scale,
    query_stride, key_stride, value_stride, attended_stride,
    SIZE: tl.constexpr, BACK: tl.constexpr, AHEAD: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    begin = tl.program_id(1).to(tl.int64) * ROWS
    query += begin * query_stride + head * SIZE
    key += begin * key_stride + head * SIZE
    value += begin * value_stride + head * SIZE
    attended += begin * attended_stride + head * SIZE
    left = (total - begin).to(tl.int32)
    rows = tl.arange(0, ROWS)
    inside = rows < left
    first, end = _sequences(firsts, ends, begin, rows, inside, total)
    low, high = _reach(first, end, ROWS, BACK, AHEAD)
    queries = _load(query, rows, inside, query_stride, SIZE)
    peak = tl.full((ROWS,), -1e30, tl.float32)
    weight = tl.zeros((ROWS,), tl.float32)
    result = tl.zeros((ROWS, SIZE), tl.float32)
    for start in range(low, high, COLUMNS):
        others = start + tl.arange(0, COLUMNS)
        there = others < left
        keys = _load(key, others, there, key_stride, SIZE)
        values = _load(value, others, there, value_stride, SIZE)
        scores = tl.dot(queries, tl.trans(keys)) * scale
        scores = tl.where(_sees(rows, others, first, end, BACK, AHEAD), scores, -1e30)
        higher = tl.maximum(peak, tl.max(scores, 1))
        shrink = tl.exp2(peak - higher)
        weights = tl.exp2(scores - higher[:, None])
        weight = weight * shrink + tl.sum(weights, 1)
        result = tl.dot(weights.to(values.dtype), values, result * shrink[:, None])
        peak = higher
    at = attended + rows[:, None] * attended_stride + tl.arange(0, SIZE)[None, :]
    tl.store(at, result / weight[:, None], mask=inside[:, None])
    sums += head.to(tl.int64) * total + begin
    tl.store(sums + rows, peak + tl.log2(weight), mask=inside)


@triton.jit
def local_attention_backward_kernel(
    d_attended, attended, sums, query, key, value, firsts, ends, d_query, d_key, d_value,
    total, scale, query_stride, key_stride, value_stride, d_attended_stride, attended_stride,
    SIZE: tl.constexpr, BACK: tl.constexpr, AHEAD: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    LN_2: tl.constexpr = 0.6931471805599453
    head = tl.program_id(0)
    begin = tl.program_id(1).to(tl.int64) * ROWS
    query += begin * query_stride + head * SIZE
    key += begin * key_stride + head * SIZE
    value += begin * value_stride + head * SIZE
    d_attended += begin * d_attended_stride + head * SIZE
    to_head = begin * attended_stride + head * SIZE
    attended += to_head
    sums += head.to(tl.int64) * total + begin
    left = (total - begin).to(tl.int32)
    rows = tl.arange(0, ROWS)
    inside = rows < left
    first, end = _sequences(firsts, ends, begin, rows, inside, total)
    low, high = _reach(first, end, ROWS, BACK, AHEAD)
    at = rows[:, None] * attended_stride + tl.arange(0, SIZE)[None, :]

    # The rows as queries.
    my_queries = _load(query, rows, inside, query_stride, SIZE)
    my_d_out = _load(d_attended, rows, inside, d_attended_stride, SIZE)
    my_out = _load(attended, rows, inside, attended_stride, SIZE)
    my_shared = tl.sum(my_out.to(tl.float32) * my_d_out.to(tl.float32), 1)
    my_sums = tl.load(sums + rows, mask=inside, other=0.0)
    d_queries = tl.zeros((ROWS, SIZE), tl.float32)
    for start in range(low, high, COLUMNS):
        others = start + tl.arange(0, COLUMNS)
        there = others < left
        keys = _load(key, others, there, key_stride, SIZE)
        values = _load(value, others, there, value_stride, SIZE)
        scores = tl.dot(my_queries, tl.trans(keys)) * scale
        d_weights = tl.dot(my_d_out, tl.trans(values))
        seen = _sees(rows, others, first, end, BACK, AHEAD)
        weights = tl.where(seen, tl.exp2(scores - my_sums[:, None]), 0.0)
        d_scores = weights * (d_weights - my_shared[:, None])
        d_queries = tl.dot(d_scores.to(keys.dtype), keys, d_queries)
    tl.store(d_query + to_head + at, d_queries * (scale * LN_2), mask=inside[:, None])

    # The rows as keys: who sees them is as far behind as they are ahead.
    low, high = _reach(first, end, ROWS, AHEAD, BACK)
    my_keys = _load(key, rows, inside, key_stride, SIZE)
    my_values = _load(value, rows, inside, value_stride, SIZE)
    d_keys = tl.zeros((ROWS, SIZE), tl.float32)
    d_values = tl.zeros((ROWS, SIZE), tl.float32)
    for start in range(low, high, COLUMNS):
        others = start + tl.arange(0, COLUMNS)
        there = others < left
        queries = _load(query, others, there, query_stride, SIZE)
        d_out = _load(d_attended, others, there, d_attended_stride, SIZE)
        out = _load(attended, others, there, attended_stride, SIZE)
        shared = tl.sum(out.to(tl.float32) * d_out.to(tl.float32), 1)
        other_sums = tl.load(sums + others, mask=there, other=0.0)
        scores = tl.dot(my_keys, tl.trans(queries)) * scale
        d_weights = tl.dot(my_values, tl.trans(d_out))
        seen = _sees(rows, others, first, end, AHEAD, BACK)
        weights = tl.where(seen, tl.exp2(scores - other_sums[None, :]), 0.0)
        d_values = tl.dot(weights.to(d_out.dtype), d_out, d_values)
        d_scores = weights * (d_weights - shared[None, :])
        d_keys = tl.dot(d_scores.to(queries.dtype), queries, d_keys)
    tl.store(d_key + to_head + at, d_keys * (scale * LN_2), mask=inside[:, None])
    tl.store(d_value + to_head + at, d_values, mask=inside[:, None])
