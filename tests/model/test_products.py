"""Products of training against float64, by the C kernels and by torch; and in float8."""

from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.model.examples import ragged_batch, small_config, with_random_weights
from tests.rounding import assert_equal_but_for_rounding
from tests.tasks.pretraining.small import World
from torch import Tensor
from torch.nn import functional

from modernbert.errors import SettingsError
from modernbert.model import products
from modernbert.model.encoder import Encoder
from modernbert.model.native.loading import library
from modernbert.model.products import linear, product
from modernbert.tasks.pretraining.pretrain import pretrain
from modernbert.training import computation
from modernbert.training.log import read_metrics

needs_kernels = pytest.mark.skipif(library() is None, reason="no C kernels on this machine")
sizes = st.integers(1, 40) | st.sampled_from([95, 96, 97, 128, 129, 383, 384, 385, 400])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(num_rows=sizes, num_columns=sizes, depth=sizes, adds=st.sampled_from(["", "rows", "all"]))
@example(num_rows=384, num_columns=1, depth=32, adds="")
@example(num_rows=128, num_columns=3073, depth=5, adds="all")
@example(num_rows=97, num_columns=17, depth=769, adds="rows")
def test_every_way_that_the_factors_can_lie(
    num_rows: int, num_columns: int, depth: int, adds: str
) -> None:
    rows, columns = draw(num_rows, depth), draw(num_columns, depth, seed=1)
    sums = {"": None, "rows": draw(num_columns), "all": draw(num_rows, num_columns)}[adds]
    expected = rows.double() @ columns.double().T + (0 if sums is None else sums)
    for left in (rows, rows.T.contiguous().T):
        for right in (columns, columns.T.contiguous().T):
            found = product(left, right, added=sums)
            assert_equal_but_for_rounding(found, expected, num_terms=depth + 1)


@pytest.mark.parametrize("depth", [100, 1_000])
def test_added_to_what_is_there(depth: int) -> None:
    rows, columns, sums = draw(130, depth), draw(70, depth, seed=1), draw(130, 70, seed=2)
    expected = sums.double() + rows.double() @ columns.double().T
    assert product(rows, columns, added=sums, out=sums) is sums
    assert_equal_but_for_rounding(sums, expected, num_terms=depth)


@pytest.mark.parametrize("num_rows", [1, 300])
def test_gradients(num_rows: int) -> None:
    hidden, bias = draw(num_rows, 40).requires_grad_(), draw(70, seed=3).requires_grad_()
    weight = draw(70, 40, seed=1).requires_grad_()
    direction = draw(num_rows, 70, seed=2)
    result = linear(hidden, weight, bias)
    found = torch.autograd.grad(result, [hidden, weight, bias], direction)
    wide = direction.double()
    assert torch.equal(linear(hidden, weight), product(hidden, weight))
    expected = hidden.double() @ weight.double().T + bias.double()
    assert_equal_but_for_rounding(result, expected, num_terms=41)
    assert_equal_but_for_rounding(found[0], wide @ weight.double(), num_terms=70)
    assert_equal_but_for_rounding(found[1], wide.T @ hidden.double(), num_terms=num_rows)
    assert_equal_but_for_rounding(found[2], wide.sum(0), num_terms=num_rows)


def test_a_frozen_weight_and_a_gradient_that_is_not_contiguous() -> None:
    hidden, weight = draw(200, 40).requires_grad_(), draw(70, 40, seed=1)
    (found,) = torch.autograd.grad(linear(hidden, weight).sum(), hidden)
    expected = weight.double().sum(0).expand(200, 40)
    assert_equal_but_for_rounding(found, expected, num_terms=70)


@needs_kernels
def test_the_number_of_threads_changes_no_bit() -> None:
    rows, columns = draw(300, 1_000), draw(250, 1_000, seed=1)
    expected = product(rows, columns)
    for threads in (2, 3, 16):
        torch.set_num_threads(threads)
        assert torch.equal(product(rows, columns), expected)


@needs_kernels
def test_other_types_and_few_rows_are_left_to_torch() -> None:
    suits = products._suits
    rows, columns = draw(128, 64), draw(32, 64)
    assert suits(rows, columns) and not suits(rows[:127], columns)
    assert not suits(rows.double(), columns.double())
    assert not suits(rows[:, ::2], columns[:, ::2])
    assert not suits(rows[:, :0], columns[:, :0])
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(rows, columns).dtype is torch.bfloat16


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
