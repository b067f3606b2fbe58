"""The C kernels as functions of tensors, with gradients; and the optimizer's step."""

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from modernbert.model.layout import Layout
from modernbert.model.native.loading import has_bfloat16, library
from modernbert.model.rope import RotaryTable

_BLOCK = 16384
HEAD_SIZE = 64
_LANES = 16
_COLUMNS = 16_384
_WIDTH = 16  # a multiple of the lanes of every variant
_MOST_DIM = 1024
_LOG2_E = math.log2(math.e)


class _AttentionInput(ctypes.Structure):
    _fields_ = (
        ("query", ctypes.c_void_p),
        ("key", ctypes.c_void_p),
        ("value", ctypes.c_void_p),
        ("step", ctypes.c_long),
        ("borders", ctypes.c_void_p),
        ("num_sequences", ctypes.c_long),
        ("num_heads", ctypes.c_long),
        ("window", ctypes.c_long),
        ("is_causal", ctypes.c_long),
        ("is_bf16", ctypes.c_long),
        ("num_threads", ctypes.c_long),
    )


def supports_attention(qkv: Tensor, num_heads: int) -> bool:
    """Return whether `attend` can take (total_tokens, 3 x num_heads x head_size) of this type."""
    return qkv.shape[1] == 3 * num_heads * HEAD_SIZE and _supports(qkv)


def supports_geglu(halves: Tensor) -> bool:
    """Return whether `geglu` can take (rows, 2 x width) of this type."""
    return halves.shape[1] % (2 * _LANES) == 0 and _supports(halves)


def _supports(values: Tensor) -> bool:
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    if values.dtype is torch.bfloat16:
        return has_bfloat16()
    return values.dtype is torch.float32 and library() is not None


def attend(
    qkv: Tensor, table: RotaryTable, layout: Layout, *, num_heads: int, window: int | None
) -> Tensor:
    """Rotate queries and keys and let every token attend to its own sequence.

    Args:
        qkv: (total_tokens, 3 x num_heads x 64), float32 or bfloat16, not rotated.
        table: The rotary table of the batch.
        layout: The layout of the batch.
        num_heads: The number of attention heads.
        window: How many tokens on each side are seen; all when None.

    Returns:
        (total_tokens, num_heads x 64).
    """
    attended: Tensor = _Attend.apply(qkv, table, layout, num_heads, window)  # type: ignore[no-untyped-call]
    return attended


def geglu(halves: Tensor) -> Tensor:
    """`gelu(a) * b` of the halves a, b of each row: (rows, 2 x width) to (rows, width)."""
    gated: Tensor = _GeGLU.apply(halves)  # type: ignore[no-untyped-call]
    return gated


def weighted_rows(rows: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of some rows, each times a weight; by torch where there are no kernels.

    Args:
        rows: (num_rows, width) int8; a row may be on the disk, mapped into memory.
        chosen: (n,) int64, the rows.
        weights: (n,) float32.

    Returns:
        (width,) float32.
    """
    kernels, width = library(), rows.shape[1]
    assert rows.is_contiguous() and rows.dtype is torch.int8
    out = torch.empty(width)
    if kernels is None:
        for start in range(0, width, _COLUMNS):
            block = slice(start, start + _COLUMNS)
            out[block] = weights @ rows[chosen, block].float()
        return out
    kernels.modernbert_weighted_rows(
        _at(rows),
        ctypes.c_long(width),
        _at(chosen),
        _at(weights),
        ctypes.c_long(len(chosen)),
        _at(out),
        ctypes.c_long(torch.get_num_threads()),
    )
    return out


def max_sim(
    vectors: Tensor, scales: Tensor, borders: Tensor, chosen: Tensor, query: Tensor
) -> Tensor | None:
    """MaxSim of a query and chosen documents; None where there are no kernels.

    Args:
        vectors: (num_vectors, dim) int8, those of each document beside each other; they may be on
            the disk, mapped into memory.
        scales: (num_vectors, 1) float32, what 1 stands for in each.
        borders: (num_documents + 1,) int64, where the vectors of each document begin.
        chosen: (n,) int64, the documents.
        query: (num_query_vectors, dim) float32.

    Returns:
        (n,) float32.
    """
    kernels, dim = library(), vectors.shape[1]
    if kernels is None or dim > _MOST_DIM:
        return None
    width = -(-len(query) // _WIDTH) * _WIDTH
    columns, out = torch.zeros(dim, width), torch.empty(len(chosen))
    columns[:, : len(query)] = query.T
    kernels.modernbert_max_sim(
        *map(_at, (vectors, scales, borders, chosen)),
        ctypes.c_long(len(chosen)),
        _at(columns),
        ctypes.c_long(dim),
        ctypes.c_long(width),
        _at(out),
        ctypes.c_long(torch.get_num_threads()),
    )
    return out


def quantize(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row to int8 with a scale of its own, as unsigned numbers; 128 stands for 0.

    Args:
        rows: (num_rows, width), float32 or bfloat16; x86 alone.

    Returns:
        (num_rows, width) uint8, and (num_rows,) float32: what 1 stands for in each row.
    """
    rows = rows.contiguous()
    out, scales = torch.empty(rows.shape, dtype=torch.uint8), torch.empty(len(rows))
    numbers = rows.dtype is torch.bfloat16, *rows.shape
    _kernels().modernbert_quantize(
        _at(rows),
        *map(ctypes.c_long, numbers),
        _at(out),
        _at(scales),
        ctypes.c_long(torch.get_num_threads()),
    )
    return out, scales


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        table: RotaryTable,
        layout: Layout,
        num_heads: int,
        window: int | None,
    ) -> Tensor:
        qkv = qkv.contiguous()
        scale = HEAD_SIZE**-0.5
        rotated = _rotate(qkv, torch.empty_like(qkv), table, num_heads, scale * _LOG2_E, 1)
        out = qkv.new_empty(len(qkv), num_heads * HEAD_SIZE)
        log_sums = torch.empty(num_heads, len(qkv)) if ctx.needs_input_grad[0] else None
        call = _input(rotated, layout, num_heads, window)
        _check(
            _kernels().modernbert_attend(
                ctypes.byref(call), _at(out), ctypes.c_long(out.shape[1]), _at(log_sums)
            )
        )
        ctx.save_for_backward(rotated, out, log_sums, *table)
        ctx.layout, ctx.num_heads, ctx.window = layout, num_heads, window
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rotated, out, log_sums, *table = ctx.saved_tensors
        gradient = gradients[0].to(out.dtype).contiguous()
        width = out.shape[1]
        changes, deltas = torch.empty_like(rotated), torch.empty_like(log_sums)
        call = _input(rotated, ctx.layout, ctx.num_heads, ctx.window)
        _check(
            _kernels().modernbert_attend_backward(
                ctypes.byref(call),
                _at(out),
                _at(gradient),
                ctypes.c_long(width),
                _at(log_sums),
                _at(deltas),
                ctypes.c_float(HEAD_SIZE**-0.5),
                _at(changes),
                _at(changes, width),
                _at(changes, 2 * width),
                ctypes.c_long(3 * width),
            )
        )
        _rotate(changes, changes, RotaryTable(*table), ctx.num_heads, 1.0, -1)
        return changes, None, None, None, None


class _GeGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, halves: Tensor) -> Tensor:
        halves = halves.contiguous()
        ctx.save_for_backward(halves)
        rows, width = halves.shape[0], halves.shape[1] // 2
        out = halves.new_empty(rows, width)
        _kernels().modernbert_geglu(_at(halves), _at(out), *_sizes(halves, rows, width))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (halves,) = ctx.saved_tensors
        gradient = gradients[0].to(halves.dtype).contiguous()
        rows, width = gradient.shape
        out = torch.empty_like(halves)
        _kernels().modernbert_geglu_backward(
            _at(halves), _at(gradient), _at(out), *_sizes(halves, rows, width)
        )
        return out


def _kernels() -> ctypes.CDLL:
    kernels = library()
    assert kernels is not None, "callers ask `supports` first"
    return kernels


def _input(rotated: Tensor, layout: Layout, num_heads: int, window: int | None) -> _AttentionInput:
    width = num_heads * HEAD_SIZE
    return _AttentionInput(
        query=_at(rotated),
        key=_at(rotated, width),
        value=_at(rotated, 2 * width),
        step=3 * width,
        borders=layout.borders.data_ptr(),
        num_sequences=layout.batch.num_sequences,
        num_heads=num_heads,
        window=-1 if window is None else window,
        is_causal=layout.is_causal,
        is_bf16=rotated.dtype is torch.bfloat16,
        num_threads=torch.get_num_threads(),
    )


def _rotate(
    values: Tensor, out: Tensor, table: RotaryTable, num_heads: int, scale: float, direction: int
) -> Tensor:
    _kernels().modernbert_rotate(
        _at(values),
        _at(out),
        _at(table.cos),
        _at(table.sin),
        ctypes.c_long(len(values)),
        ctypes.c_long(num_heads),
        ctypes.c_float(scale),
        ctypes.c_float(direction),
        ctypes.c_long(values.dtype is torch.bfloat16),
        ctypes.c_long(torch.get_num_threads()),
    )
    return out


def _at(values: Tensor | None, offset: int = 0) -> ctypes.c_void_p:
    """The address of a tensor's memory, some entries in; null for None."""
    if values is None:
        return ctypes.c_void_p(None)
    return ctypes.c_void_p(values.data_ptr() + offset * values.element_size())


def _sizes(values: Tensor, rows: int, width: int) -> tuple[ctypes.c_long, ...]:
    numbers = rows, width, values.dtype is torch.bfloat16, torch.get_num_threads()
    return tuple(ctypes.c_long(number) for number in numbers)


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("the attention kernels could not get their buffers")


class _Described(ctypes.Structure):
    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p),
        ("mean", ctypes.c_void_p),
        ("square", ctypes.c_void_p),
        ("count", ctypes.c_long),
        ("new_mean", ctypes.c_float),
        ("new_square", ctypes.c_float),
        ("eps", ctypes.c_float),
        ("rate", ctypes.c_float),
        ("decay", ctypes.c_float),
        ("is_clipped", ctypes.c_long),
    )


def update(updates: Sequence[Any]) -> list[bool]:
    """Change weights and averages in place, where the kernels can.

    Args:
        updates: One `TensorUpdate` of `training/optimizer.py` for each tensor.

    Returns:
        Whether each was done; the others are float64, on a GPU, or not contiguous.
    """
    kernels = library()
    done = [kernels is not None and _suits(each) for each in updates]
    ours = [each for each, is_done in zip(updates, done, strict=True) if is_done]
    if kernels is not None and ours:
        described = (_Described * len(ours))(*map(_describe, ours))
        largest = max(each.weight.numel() for each in ours)
        sums = torch.empty(-(-largest // _BLOCK), dtype=torch.float64)
        kernels.modernbert_update(
            described,
            ctypes.c_long(len(ours)),
            ctypes.c_void_p(sums.data_ptr()),
            ctypes.c_long(torch.get_num_threads()),
        )
    return done


def _suits(each: Any) -> bool:
    return each.weight.numel() > 0 and all(
        values.is_contiguous()
        and values.dtype is torch.float32
        and values.device.type == "cpu"
        and values.layout is torch.strided
        for values in (each.weight, each.gradient, each.mean, each.square)
    )


def _describe(each: Any) -> _Described:
    return _Described(
        weight=each.weight.data_ptr(),
        gradient=each.gradient.data_ptr(),
        mean=each.mean.data_ptr(),
        square=each.square.data_ptr(),
        count=each.weight.numel(),
        new_mean=each.new_mean,
        new_square=each.new_square,
        eps=each.eps,
        rate=each.rate,
        decay=each.decay,
        is_clipped=each.is_clipped,
    )
