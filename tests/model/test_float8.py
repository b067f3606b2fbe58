"""Products in float8, beside those in float32; torch multiplies them on a CPU too."""

from pathlib import Path

import pytest
import torch
from tests.model.examples import ragged_batch, small_config, with_random_weights
from tests.tasks.pretraining.small import World
from torch.nn import functional

from modernbert.errors import SettingsError
from modernbert.model.encoder import Encoder
from modernbert.model.products import linear
from modernbert.tasks.pretraining.pretrain import pretrain
from modernbert.training import computation
from modernbert.training.log import read_metrics

ROUNDING = 2**-4  # of e4m3, of both factors


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((found.float() - expected).norm() / expected.norm()).detach())


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e4])
@pytest.mark.parametrize("has_bias", [False, True])
def test_near_the_product_and_its_gradients(spread: float, has_bias: bool) -> None:
    torch.manual_seed(0)
    hidden = (spread * torch.randn(40, 64)).requires_grad_()
    weight, bias = torch.randn(48, 64).requires_grad_(), torch.randn(48).requires_grad_()
    given = [hidden, weight, bias] if has_bias else [hidden, weight]
    direction = torch.randn(40, 48)
    found = linear(*given, float8=True)
    expected = functional.linear(*given)
    assert found.dtype is torch.bfloat16
    assert 1e-4 < relative(found, expected) < ROUNDING
    gradients = torch.autograd.grad(found, given, direction.bfloat16())
    for one, other in zip(gradients, torch.autograd.grad(expected, given, direction), strict=True):
        assert one.dtype is torch.float32 and relative(one, other) < ROUNDING
    assert relative(gradients[1], direction.T @ hidden.detach()) < 2**-7  # in bfloat16


def test_a_row_does_not_depend_on_the_others() -> None:
    rows, weight = torch.randn(5, 32), torch.randn(16, 32)
    alone = linear(rows[:1], weight, float8=True)
    rows[1:] *= 1e6
    assert torch.equal(linear(rows, weight, float8=True)[:1], alone)
    assert torch.equal(linear(0 * rows, weight, float8=True), torch.zeros(5, 16).bfloat16())


def test_matrices_that_do_not_fit_are_multiplied_as_ever() -> None:
    rows, weight = torch.randn(5, 30), torch.randn(16, 30)
    assert torch.equal(linear(rows, weight, float8=True), functional.linear(rows, weight))


def test_an_encoder_takes_it_on_request() -> None:
    model = with_random_weights(Encoder(small_config()))
    batch = ragged_batch([9, 3])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = model(batch).float()
        model.float8 = True
        assert 1e-3 < relative(model(batch), plain) < 4 * ROUNDING


def test_a_run_learns_as_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World.write(tmp_path / "world")
    with pytest.raises(SettingsError, match='"float8", which cpu lacks'):
        pretrain(world.recipe(tmp_path / "none", training__precision="float8"))
    monkeypatch.setattr(computation, "has_float8", lambda _: True)
    losses = {}
    for precision in ("bfloat16", "float8"):
        output = tmp_path / precision
        result = pretrain(world.recipe(output, training__precision=precision))
        losses[precision] = result.evaluation["held_out_loss"]
    first = next(
        each["held_out_loss"]
        for each in read_metrics(tmp_path / "float8" / "metrics.jsonl")
        if each["kind"] == "evaluation"
    )
    assert losses["float8"] != losses["bfloat16"] and losses["float8"] < first - 0.1
    assert losses["float8"] == pytest.approx(losses["bfloat16"], rel=0.02)
