"""What all fine-tunings share: the rate by width, and numbers out of their range."""

from typing import Any

import pytest

from modernbert.errors import SettingsError
from modernbert.settings import parse, to_mapping
from modernbert.tasks.finetune import find_verb
from modernbert.tasks.tuning.recipe import RunSettings, SweepSettings, runs_of
from modernbert.training import run_folder


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


# What a recipe of before wrote for every verb, with or without an effect.
WRITTEN = {
    "tag": {"pooling": "mean", "few_shot": False, "class_weights": "balanced"},
    "answer": {"pooling": "mean", "few_shot": False, "class_weights": "equal"},
    "retrieve": {"dim": 128, "skip_punctuation": False, "matryoshka_dims": [8], "pooling": "cls"},
    "rerank": {"dim": 128, "skip_punctuation": False, "matryoshka_dims": [], "pooling": "mean"},
}


@pytest.mark.parametrize("verb", WRITTEN)
def test_recipes_of_before_are_read_and_their_runs_continued(verb: str) -> None:
    training = find_verb(verb).training_class
    found = parse(training, {"epochs": 2, **WRITTEN[verb]}, where="recipe")
    # What a run depends on has the names and the values that it had.
    assert run_folder.plain(found.identity).items() >= {"epochs": 2, **WRITTEN[verb]}.items()
    assert parse(training, to_mapping(found), where="written anew") == found


def test_a_former_setting_with_another_value_is_refused() -> None:
    """It had no effect before; that nobody may believe it has one, it is named."""
    with pytest.raises(SettingsError, match="unknown key 'dim'"):
        parse(find_verb("rerank").training_class, {"dim": 64}, where="recipe")


def test_only_another_optimizer_than_that_of_earlier_versions_is_part_of_the_identity() -> None:
    assert "optimizer" not in RunSettings().identity
    assert RunSettings(optimizer="muon").identity["optimizer"] == "muon"
