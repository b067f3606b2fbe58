"""The rotation in one kernel, against that of the model."""

import pytest
import torch

from modernbert.model.rope import RotaryTable, rotary_table, rotate

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("rows", "num_heads", "size"), [(1, 2, 16), (9, 24, 64), (0, 2, 32)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_equal_to_torch(
    rows: int, num_heads: int, size: int, dtype: torch.dtype, device: torch.device
) -> None:
    from modernbert.model.gpu.rotation import turn

    if device.type == "cpu" and dtype is torch.bfloat16:
        pytest.skip("the interpreter has no bfloat16")
    joint = torch.randn(rows, num_heads + 1, size, device=device).to(dtype).requires_grad_()
    heads = joint[:, :num_heads]  # whose rows lie apart
    table = rotary_table(torch.arange(rows, device=device) * 7, size, 160_000.0)
    direction = torch.randn(rows, num_heads, size, device=device).to(dtype)
    turned = turn(heads, *table, 1.0)
    (found,) = torch.autograd.grad(turned, joint, direction)
    wide = joint.detach().double().requires_grad_()
    expected = _in_float64(wide[:, :num_heads], table)
    (expected_gradient,) = torch.autograd.grad(expected, wide, direction.double())
    near = {"rtol": 2**-8 if dtype is torch.bfloat16 else 2**-10, "atol": 1e-3}
    torch.testing.assert_close(turned.double(), expected, **near)
    torch.testing.assert_close(found.double(), expected_gradient, **near)
    torch.testing.assert_close(turned, rotate(heads, table), **near)


def _in_float64(heads: torch.Tensor, table: RotaryTable) -> torch.Tensor:
    first, second = heads.chunk(2, dim=-1)
    cos, sin = (each.double()[:, None] for each in table)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
