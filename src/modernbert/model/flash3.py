"""FlashAttention 3 over a flat batch, as an operator of torch's with its gradients.

The operators of the package are called as they are, so that nothing else in the process computes
differently; torch's own way of activating it replaces its attention everywhere.
"""

import torch
from torch import Tensor


@torch.library.custom_op("modernbert::flash3", mutates_args=())
def flash3(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    borders: Tensor,
    longest: int,
    before: int,
    after: int,
) -> tuple[Tensor, Tensor]:
    """Let every token attend to those of its own sequence that are near enough.

    Args:
        query: (total_tokens, num_heads, head_size) float16 or bfloat16, rotated already.
        key: As `query`.
        value: As `query`.
        borders: (num_sequences + 1,) int32.
        longest: The length of the longest sequence, or more.
        before: How far a token sees before it; -1 for all of its sequence.
        after: The same behind it.

    Returns:
        The result, of the shape of `query`, and the logarithm of each softmax's sum, (num_heads,
        total_tokens) float32.
    """
    query, key, value = (_by_heads(x) for x in (query, key, value))
    # One split, so that a text's result does not depend on the others in its batch.
    found = torch.ops.flash_attn_3.fwd(
        query, key, value, **_shared(query, borders, longest, before, after), num_splits=1
    )
    return found[0], found[1]


@flash3.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    borders: Tensor,
    longest: int,
    before: int,
    after: int,
) -> tuple[Tensor, Tensor]:
    del key, value, borders, longest, before, after
    sums = query.new_empty(query.shape[1], query.shape[0], dtype=torch.float32)
    return torch.empty_like(query, memory_format=torch.contiguous_format), sums


@torch.library.custom_op("modernbert::flash3_backward", mutates_args=())
def flash3_backward(
    d_attended: Tensor,
    attended: Tensor,
    sums: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    borders: Tensor,
    longest: int,
    before: int,
    after: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value: (total_tokens, num_heads, head_size) each."""
    d_attended, query, key, value = (_by_heads(x) for x in (d_attended, query, key, value))
    d_query, d_key, d_value = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
    )
    torch.ops.flash_attn_3.bwd(
        d_attended, query, key, value, attended, sums, d_query, d_key, d_value,
        **_shared(query, borders, longest, before, after),
    )  # fmt: skip
    return d_query, d_key, d_value


@flash3_backward.register_fake
def _(
    d_attended: Tensor,
    attended: Tensor,
    sums: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    borders: Tensor,
    longest: int,
    before: int,
    after: int,
) -> tuple[Tensor, Tensor, Tensor]:
    del d_attended, attended, sums, borders, longest, before, after
    d_query, d_key, d_value = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)
    )
    return d_query, d_key, d_value


def _shared(
    query: Tensor, borders: Tensor, longest: int, before: int, after: int
) -> dict[str, object]:
    """What both directions are told by name."""
    return {
        "cu_seqlens_q": borders,
        "cu_seqlens_k": borders,
        "max_seqlen_q": longest,
        "max_seqlen_k": longest,
        "softmax_scale": query.shape[2] ** -0.5,
        "is_causal": (before, after) == (-1, 0),
        "window_size_left": before,
        "window_size_right": after,
    }


def _by_heads(heads: Tensor) -> Tensor:
    """The same where the numbers of a head lie one after the other."""
    return heads if heads.stride(2) == 1 else heads.contiguous()


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    query, key, value, borders, *ctx.numbers = inputs
    ctx.save_for_backward(*output, query, key, value, borders)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, d_attended: Tensor, _):  # type: ignore[no-untyped-def]
    gradients = flash3_backward(d_attended, *ctx.saved_tensors, *ctx.numbers)
    return *gradients, None, None, None, None


flash3.register_autograd(_differentiate, setup_context=_save)
