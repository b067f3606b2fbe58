"""A phase on a machine."""

import pytest
from tests.planning.examples import machine, phase

from modernbert.errors import InputError
from modernbert.model.config import EncoderConfig
from modernbert.planning.plan import fitted_share, plan_phase


def test_hours_by_hand() -> None:
    plan = plan_phase(phase(), machine(num_gpus=4, share_of_peak=0.5, price_per_gpu_hour=2.0))
    a_token = phase().training_flops_per_token()
    waited = plan.communication.waiting_seconds * 1e9 / phase().tokens_per_step
    seconds = 1e9 * a_token / (4 * 0.5 * 989.4e12) + waited
    assert plan.hours == pytest.approx(seconds / 3600)
    assert plan.tokens_per_second == pytest.approx(1e9 / seconds)
    assert plan.gpu_hours == pytest.approx(4 * plan.hours)
    assert plan.cost == pytest.approx(8 * plan.hours)
    assert plan.flops == pytest.approx(1e9 * a_token)


def test_without_a_price_there_is_no_cost() -> None:
    assert plan_phase(phase(), machine()).cost is None


def test_a_fitted_share_gives_the_hours_back() -> None:
    share = fitted_share(phase(), machine(num_gpus=8), hours=0.2)
    assert plan_phase(phase(), machine(num_gpus=8, share_of_peak=share)).hours == pytest.approx(0.2)


def test_recomputing_takes_longer_and_less_memory() -> None:
    kept, again = plan_phase(phase(), machine()), plan_phase(phase(), machine(recompute=True))
    assert 1.25 < again.hours / kept.hours < 4 / 3
    assert again.memory.total < kept.memory.total / 3


def test_float8_doubles_the_rate_of_the_large_products() -> None:
    plain, narrow = (plan_phase(phase(precision=each), machine()) for each in ("auto", "float8"))
    saved = phase(precision="float8").float8_flops_per_token() / 2
    ratio = narrow.hours / plain.hours
    assert ratio == pytest.approx(1 - saved / plain.flops_per_token) and 0.6 < ratio < 0.8
    with pytest.raises(InputError, match='"float8", which A100 SXM 80 GB lacks'):
        plan_phase(phase(precision="float8"), machine("a100"))


def test_folders() -> None:
    plan = plan_phase(phase(keep_checkpoints=3), machine())
    assert plan.model_bytes == 4 * EncoderConfig.preset("base").num_parameters(head=True)
    assert plan.checkpoint_bytes == 3 * plan.model_bytes
    assert plan.disk_bytes == 4 * plan.checkpoint_bytes + plan.model_bytes


def test_a_plan_that_fits_has_no_warnings() -> None:
    assert plan_phase(phase(), machine(num_gpus=8)).warnings == ()


def test_too_little_memory() -> None:
    (warning,) = plan_phase(phase(), machine("l4")).warnings
    assert "do not fit the 24 GB of L4" in warning


def test_too_many_processes() -> None:
    (warning,) = plan_phase(phase(tokens_per_step=100_000), machine(num_gpus=2)).warnings
    assert "100,000 tokens is less than a micro-batch for each of 2 processes" in warning
