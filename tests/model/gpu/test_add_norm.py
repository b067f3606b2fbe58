"""Add and norm in one kernel, against torch in float64."""

import pytest
import torch
from torch.nn import functional

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("rows", "width"), [(1, 16), (7, 768), (270, 48), (0, 64)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_equal_to_torch(rows: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
    from modernbert.model.gpu.add_norm import add_norm

    if device.type == "cpu" and dtype is torch.bfloat16:
        pytest.skip("the interpreter has no bfloat16")
    hidden = (3 * torch.randn(rows, width, device=device) + 1).requires_grad_()
    added = torch.randn(rows, width, device=device).to(dtype).requires_grad_()
    weight = (torch.randn(width, device=device) + 1).requires_grad_()
    d_total = torch.randn(rows, width, device=device)
    d_normed = torch.randn(rows, width, device=device).to(dtype)
    total, normed, *_ = add_norm(hidden, added, weight, 1e-5)
    assert total.dtype is torch.float32 and normed.dtype is dtype
    found = torch.autograd.grad((total, normed), (hidden, added, weight), (d_total, d_normed))

    wide = [each.detach().double().requires_grad_() for each in (hidden, added, weight)]
    expected_total = wide[0] + wide[1]
    expected_normed = functional.layer_norm(expected_total, (width,), wide[2], eps=1e-5)
    expected = torch.autograd.grad(
        (expected_total, expected_normed), wide, (d_total.double(), d_normed.double())
    )
    half = {"rtol": 2**-8 if dtype is torch.bfloat16 else 2**-10, "atol": 1e-3}
    single = {"rtol": 1e-5, "atol": 1e-4}
    torch.testing.assert_close(total.double(), expected_total, **single)
    torch.testing.assert_close(normed.double(), expected_normed, **half)
    for one, other, near in zip(found, expected, (single, half, single), strict=True):
        torch.testing.assert_close(one.double(), other, **near)


def test_the_stream_alone_may_have_a_gradient(device: torch.device) -> None:
    from modernbert.model.gpu.add_norm import add_norm

    hidden = torch.randn(3, 32, device=device).requires_grad_()
    added = torch.randn(3, 32, device=device).half().requires_grad_()
    total, *_ = add_norm(hidden, added, torch.ones(32, device=device), 1e-5)
    for gradient in torch.autograd.grad(total.sum(), (hidden, added)):
        torch.testing.assert_close(gradient, torch.ones_like(gradient))
