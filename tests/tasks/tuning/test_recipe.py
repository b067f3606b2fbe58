"""What all fine-tunings share: the rate by width, and numbers out of their range."""

from typing import Any

import pytest

from modernbert.errors import SettingsError
from modernbert.tasks.tuning.recipe import RunSettings, SweepSettings, runs_of


def test_narrow_models_take_larger_steps() -> None:
    plain = RunSettings()
    assert plain.peak_rate(768) == pytest.approx(5e-5)
    assert plain.peak_rate(256) == pytest.approx(4.5e-4)
    assert plain.peak_rate(1024) == pytest.approx(2.8125e-5)
    assert RunSettings(learning_rate=1e-3).peak_rate(256) == 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"batch_tokens": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"layer_decay": 1.5},
        {"warmup_fraction": 1.0},
        {"weight_decay": -0.1},
        {"freeze_layers": -1},
    ],
)
def test_numbers_out_of_range_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"^{next(iter(changes))}: got "):
        RunSettings(**changes)


def test_a_sweep_is_every_combination_with_the_seeds_side_by_side() -> None:
    sweep = SweepSettings(seeds=(3, 4), learning_rates=(1e-4, 2e-4), epochs=(1,))
    runs = runs_of(RunSettings(), sweep)
    found = [(run.training.learning_rate, run.training.epochs, run.seed) for run in runs]
    assert found == [(1e-4, 1, 3), (1e-4, 1, 4), (2e-4, 1, 3), (2e-4, 1, 4)]
    assert len({run.name for run in runs}) == 4
    with pytest.raises(SettingsError, match=r"^learning_rates: a value"):
        SweepSettings(learning_rates=(1e-4, 1e-4))
