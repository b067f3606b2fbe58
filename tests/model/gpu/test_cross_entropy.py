"""Logits to gradients in place, against torch in float64."""

import pytest
import torch
from torch.nn import functional

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("rows", "vocab_size"), [(1, 5), (7, 50_368), (20, 4_097), (0, 10)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_equal_to_torch(
    rows: int, vocab_size: int, dtype: torch.dtype, device: torch.device
) -> None:
    from modernbert.model.gpu.cross_entropy import become_gradients

    if device.type == "cpu" and dtype is torch.bfloat16:
        pytest.skip("the interpreter has no bfloat16")
    logits = (4 * torch.randn(rows, vocab_size, device=device)).to(dtype)
    labels = torch.randint(vocab_size, (rows,), device=device)
    wide = logits.double().requires_grad_()
    expected = functional.cross_entropy(wide, labels, reduction="none")
    expected.sum().backward()
    losses = become_gradients(logits, labels)
    assert wide.grad is not None
    torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    near = {"rtol": 2**-8 if dtype is torch.bfloat16 else 2**-10, "atol": 1e-6}
    torch.testing.assert_close(logits.double(), wide.grad, **near)
