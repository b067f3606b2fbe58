"""GeGLU in one kernel, against torch in float64."""

import pytest
import torch
from torch.nn import functional

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("rows", "width"), [(1, 16), (130, 1_152), (33, 2_624), (5, 7), (0, 64)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_equal_to_torch(rows: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
    from modernbert.model.gpu.geglu import geglu

    if device.type == "cpu" and dtype is torch.bfloat16:
        pytest.skip("the interpreter has no bfloat16")
    halves = torch.randn(rows, 2 * width, device=device).to(dtype).requires_grad_()
    direction = torch.randn(rows, width, device=device).to(dtype)
    gated = geglu(halves)
    (gradient,) = torch.autograd.grad(gated, halves, direction)
    wide = halves.detach().double().requires_grad_()
    a, b = wide.chunk(2, dim=1)
    expected = functional.gelu(a) * b
    (expected_gradient,) = torch.autograd.grad(expected, wide, direction.double())
    near = {"rtol": 2**-8 if dtype is torch.bfloat16 else 2**-10, "atol": 1e-5}
    torch.testing.assert_close(gated.double(), expected, **near)
    torch.testing.assert_close(gradient.double(), expected_gradient, **near)
