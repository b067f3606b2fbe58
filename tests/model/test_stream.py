"""The residual stream in bfloat16: how far results and gradients are from those in float64."""

import copy

import torch
from tests.model.examples import ragged_batch, small_config, with_random_weights
from torch import Tensor

from modernbert.model.encoder import Encoder
from modernbert.model.layer import Layer

LENGTHS = [3, 30, 1, 17]


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


def errors(model: Encoder, exact: Encoder) -> tuple[float, float]:
    """Of the result, and the largest of all gradients'."""
    batch = ragged_batch(LENGTHS)
    direction = torch.randn(batch.total_tokens, model.config.hidden_size)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(batch)
    expected = exact(batch)
    for each in (found, expected):
        (each.double() * direction).sum().backward()
    pairs = zip(model.parameters(), exact.parameters(), strict=True)
    gradients = [relative(one.grad, other.grad) for one, other in pairs]
    return relative(found.detach(), expected.detach()), max(gradients)


def test_near_float64_with_gradients() -> None:
    torch.manual_seed(0)
    exact = with_random_weights(Encoder(small_config())).double()
    wide, narrow = (copy.deepcopy(exact).float() for _ in range(2))
    narrow.narrow_stream = True
    streams: list[torch.dtype] = []
    for layer in narrow.layers:
        assert isinstance(layer, Layer)
        layer.register_forward_hook(lambda _, __, result: streams.append(result[0].dtype))
    of_wide, of_narrow = errors(wide, copy.deepcopy(exact)), errors(narrow, copy.deepcopy(exact))
    assert set(streams) == {torch.bfloat16}
    assert of_narrow[0] > of_wide[0]  # it is another computation
    assert of_narrow[0] < 0.02 and of_narrow[1] < 0.05
    assert all(each.grad.dtype is torch.float32 for each in narrow.parameters())
