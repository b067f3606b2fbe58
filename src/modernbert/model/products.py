"""Products of matrices in training: by the C kernels in float32 on a CPU, by torch otherwise.

On request a product is computed in float8, and so are the gradients of its inputs. Numbers are
e4m3, scaled by the largest of each row that is summed over, so that a token's result does not
depend on the other tokens. The gradients of the weights, which add up over all tokens, are
products in bfloat16.
"""

import ctypes
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from modernbert.model.native.loading import library

# Packing costs as much as some rows of the product; with less to multiply torch is as fast.
_MIN_SIDE, _MIN_ENTRIES = 32, 128 * 64
_rooms = threading.local()

_DTYPE = torch.float8_e4m3fn
_LARGEST = torch.finfo(_DTYPE).max
_SMALLEST_ROW = 1e-12  # a row of zeros is divided by this
_MULTIPLE = 16  # of both sides of a matrix in float8


class _Factor(ctypes.Structure):
    _fields_ = (
        ("base", ctypes.c_void_p),
        ("step", ctypes.c_long),
        ("is_turned", ctypes.c_long),
    )


def linear(
    hidden: Tensor, weight: Tensor, bias: Tensor | None = None, *, float8: bool = False
) -> Tensor:
    """`hidden @ weight.T + bias`, with gradients of all.

    Args:
        hidden: (num_rows, depth), any float type.
        weight: (num_columns, depth).
        bias: (num_columns,), or None.
        float8: Whether to multiply in float8 if the matrix is fit for it; the result is bfloat16
            then.

    Returns:
        (num_rows, num_columns), of the type that autocast or the arguments ask for.
    """
    if float8 and len(hidden) and not any(side % _MULTIPLE for side in weight.shape):
        narrow: Tensor = _Float8Linear.apply(hidden, weight)  # type: ignore[no-untyped-call]
        return narrow if bias is None else narrow + bias.to(narrow.dtype)
    if _suits(hidden, weight) and not torch.is_autocast_enabled("cpu"):
        result: Tensor = _Linear.apply(hidden, weight, bias)  # type: ignore[no-untyped-call]
        return result
    return nn.functional.linear(hidden, weight, bias)


def product(
    rows: Tensor, columns: Tensor, *, added: Tensor | None = None, out: Tensor | None = None
) -> Tensor:
    """`rows @ columns.T + added`, without gradients; transposed views cost no copy.

    Args:
        rows: (num_rows, depth).
        columns: (num_columns, depth).
        added: (num_rows, num_columns), or (num_columns,) for all rows alike; it may be `out`.
        out: Where the result goes, contiguous; a new tensor when absent.

    Returns:
        (num_rows, num_columns).
    """
    if not _suits(rows, columns):
        if added is None:
            return torch.mm(rows, columns.t(), out=out)
        return torch.addmm(added, rows, columns.t(), out=out)
    if out is None:
        out = rows.new_empty(len(rows), len(columns))
    kernels, threads = library(), torch.get_num_threads()
    assert kernels is not None and out.is_contiguous()
    added = None if added is None else added.contiguous()
    left, right = _factor(rows), _factor(columns)
    kernels.modernbert_product(
        ctypes.byref(left),
        ctypes.byref(right),
        *(ctypes.c_long(number) for number in (len(rows), len(columns), rows.shape[1])),
        ctypes.c_void_p(None if added is None else added.data_ptr()),
        ctypes.c_long(len(columns) if added is not None and added.ndim == 2 else 0),
        ctypes.c_void_p(out.data_ptr()),
        ctypes.c_long(len(columns)),
        ctypes.c_void_p(_room(kernels, len(columns)).data_ptr()),
        ctypes.c_long(threads),
    )
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return product(hidden, weight, added=bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.t()) if wants_hidden else None,
            product(gradient.t(), hidden.t()) if wants_weight else None,
            gradient.sum(0) if wants_bias else None,
        )


def _suits(rows: Tensor, columns: Tensor) -> bool:
    """Whether the kernels can multiply these, and are worth it."""
    return (
        not torch.compiler.is_compiling()
        and min(rows.shape) >= _MIN_SIDE
        and rows.numel() >= _MIN_ENTRIES
        and len(columns) > 0
        and all(map(_is_plain, (rows, columns)))
        and library() is not None
    )


def _is_plain(values: Tensor) -> bool:
    """A matrix of float32 in this process's memory, contiguous or the transpose of such a one."""
    return (
        type(values) in (Tensor, nn.Parameter)
        and values.dtype is torch.float32
        and values.device.type == "cpu"
        and values.ndim == 2
        and 1 in values.stride()
    )


def _factor(values: Tensor) -> _Factor:
    """What the C code is told; the caller keeps the tensor alive."""
    step, entry = values.stride()
    is_turned = entry != 1
    return _Factor(values.data_ptr(), entry if is_turned else step, is_turned)


def _room(kernels: ctypes.CDLL, num_columns: int) -> Tensor:
    """Memory for packed columns, which a thread keeps: fresh pages for each call cost a tenth."""
    kernels.modernbert_product_room.restype = ctypes.c_long
    needed: int = kernels.modernbert_product_room(ctypes.c_long(num_columns))
    room: Tensor | None = getattr(_rooms, "room", None)
    if room is None or len(room) < needed:
        room = _rooms.room = torch.empty(needed)
    return room


class _Float8Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        narrow = hidden.bfloat16()
        ctx.save_for_backward(narrow, weight)
        ctx.dtype = hidden.dtype
        return _float8_product(narrow, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        narrow, weight = ctx.saved_tensors
        gradient = gradient.bfloat16()
        d_hidden = _float8_product(gradient, weight.t()).to(ctx.dtype)
        return d_hidden, (gradient.t() @ narrow).to(weight.dtype)


def _float8_product(rows: Tensor, columns: Tensor) -> Tensor:
    """`rows @ columns.T` of (num_rows, depth) and (num_columns, depth), in bfloat16."""
    (left, left_scale), (right, right_scale) = _scaled(rows), _scaled(columns)
    return torch._scaled_mm(
        left,
        right.t(),
        scale_a=left_scale,
        scale_b=right_scale.t(),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


def _scaled(values: Tensor) -> tuple[Tensor, Tensor]:
    """Each row in float8, and what it is to be multiplied by, (num_rows, 1) float32."""
    scale = values.abs().amax(1, keepdim=True).float().clamp(min=_SMALLEST_ROW) / _LARGEST
    return (values.float() / scale).to(_DTYPE).contiguous(), scale
