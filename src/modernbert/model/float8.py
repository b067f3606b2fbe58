"""Products of the large matrices in float8: forward, and the gradients of their inputs.

Numbers are e4m3, scaled by the largest of each row that is summed over, so that a token's result
does not depend on the other tokens. The gradients of the weights, which add up over all tokens, are
products in bfloat16.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from modernbert.model.native import products

_DTYPE = torch.float8_e4m3fn
_LARGEST = torch.finfo(_DTYPE).max
_SMALLEST_ROW = 1e-12  # a row of zeros is divided by this
_MULTIPLE = 16  # of both sides of a matrix


def linear(
    hidden: Tensor, weight: Tensor, bias: Tensor | None = None, *, float8: bool = False
) -> Tensor:
    """Compute `hidden @ weight.T + bias`, in float8 on request if the matrix is fit for it.

    Args:
        hidden: (num_rows, depth), any float type.
        weight: (num_columns, depth).
        bias: (num_columns,), or None.
        float8: Whether to multiply in float8; the result is bfloat16 then.

    Returns:
        (num_rows, num_columns).
    """
    if not float8 or any(side % _MULTIPLE for side in weight.shape) or not len(hidden):
        return products.linear(hidden, weight, bias)
    product: Tensor = _Float8Linear.apply(hidden, weight)  # type: ignore[no-untyped-call]
    return product if bias is None else product + bias.to(product.dtype)


class _Float8Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        narrow = hidden.bfloat16()
        ctx.save_for_backward(narrow, weight)
        ctx.dtype = hidden.dtype
        return _product(narrow, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        narrow, weight = ctx.saved_tensors
        gradient = gradient.bfloat16()
        d_hidden = _product(gradient, weight.t()).to(ctx.dtype)
        return d_hidden, (gradient.t() @ narrow).to(weight.dtype)


def _product(rows: Tensor, columns: Tensor) -> Tensor:
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
