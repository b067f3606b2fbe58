"""Values in place of a recipe's: found by name, typed by the field, and read as strictly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.errors import SettingsError
from modernbert.overrides import Text, overridden, read_assignments
from modernbert.settings import parse
from modernbert.tasks.labels.recipe import ClassifyRecipe
from modernbert.tasks.pretraining.recipe import PhaseRecipe, PretrainingRecipe, read_recipe

RECIPE: dict[str, Any] = {
    "output": "runs/a",
    "tokenizer": "tokenizer",
    "sources": [{"shards": "one"}, {"shards": "two"}],
    "model": {"preset": "tiny"},
    "batch": {"bins_per_step": 2},
    "training": {"total_tokens": 100, "schedule": {"peak_learning_rate": 1e-3}},
}
PHASES = {**RECIPE, "phases": [{"name": "first"}, {"name": "decay", "seed": 3}]}


def pretraining(*texts: str, recipe: dict[str, Any] = RECIPE) -> PretrainingRecipe:
    values = read_assignments(texts)
    mapping = overridden(recipe, values, PretrainingRecipe, PhaseRecipe)
    return parse(PretrainingRecipe, mapping, where="recipe")


def classify(**options: Any) -> ClassifyRecipe:
    base = {"model": "m", "output": "o", "data": {"train": "t"}}
    return parse(ClassifyRecipe, overridden(base, options, ClassifyRecipe), where="recipe")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training.total_tokens=1e9", 1_000_000_000),
        ("training.total_tokens=2_000", 2000),
        ("total_tokens=7", 7),
        ("training.schedule.peak_learning_rate=8e-4", 8e-4),
        ("peak_learning_rate = 1", 1.0),
        ("computation.compile=true", True),
        ("compile=False", False),
        ("training.optimizer=muon", "muon"),
        ("output=runs/b=2", Path("runs/b=2")),
        ("output='runs/c'", Path("runs/c")),
        ("seed=4", 4),
        ("sources.1.weight=2", 2.0),
        ("evaluation.shards=held", "held"),
        ('sources=[{shards="x", weight=3}]', 3.0),
    ],
)
def test_texts(text: str, expected: object) -> None:
    recipe = pretraining(text)
    phase = recipe.phases[0]
    assert expected in (
        recipe.output,
        recipe.computation.compile,
        phase.seed,
        phase.training.total_tokens,
        phase.training.optimizer,
        phase.training.schedule.peak_learning_rate,
        phase.sources[-1].weight,
        phase.evaluation and phase.evaluation.shards,
    )
    assert RECIPE["training"]["total_tokens"] == 100  # the mapping stays as it is


def test_phases_are_named() -> None:
    recipe = pretraining("phases.decay.training.total_tokens=5e7", "dropout=0", recipe=PHASES)
    assert [phase.training.total_tokens for phase in recipe.phases] == [100, 50_000_000]
    assert [phase.dropout for phase in recipe.phases] == [0.0, 0.0]


@pytest.mark.parametrize(
    "values",
    [{"training.seed": 9}, {"training": {"seed": 9}}, read_assignments(["training.seed=9"])],
)
def test_a_value_without_effect_is_refused(values: dict[str, Any]) -> None:
    phases = [{"name": name, "training": {"seed": 1}} for name in ("first", "second")]
    message = r"training\.seed: every phase of the recipe has its own; write phases\.NAME\.training"
    with pytest.raises(SettingsError, match=message):
        read_recipe({**RECIPE, "phases": phases}, values)
    del phases[1]["training"]
    recipe = read_recipe({**RECIPE, "phases": phases}, values)
    assert [phase.training.seed for phase in recipe.phases] == [1, 9]


def test_an_empty_value_is_the_default() -> None:
    assert pretraining("dropout=", recipe={**RECIPE, "dropout": 0.5}).phases[0].dropout == 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.total_token=1", "training: unknown key 'total_token'; did you mean 'total_tok"),
        ("trainin.total_tokens=1", "unknown key 'trainin'; did you mean 'training'"),
        ("total_toknes=1", "unknown key 'total_toknes'; did you mean 'total_tokens'"),
        ("training.total_tokens=many", "total_tokens: got 'many', expected a whole number"),
        ("training.total_tokens=1.5", "total_tokens: got 1.5, expected a whole number"),
        ("training.total_tokens=0", "total_tokens: got 0, expected 1 or more"),
        ("compile=yes", "compile: got 'yes', expected true or false"),
        ("optimizer=sgd", "optimizer: got 'sgd', expected one of 'stable-adamw'"),
        ("max_seqlen=9", "max_seqlen: several settings have this name; expected one of model.max"),
        ("masking=9", "masking: got 9, expected a table of keys"),
        ("training.seed.x=1", "training: seed: got {'x': '1'}, expected a whole number"),
        ("seed.x=1", "seed.x: leads into seed, which has no keys"),
        ("sources.two.weight=1", "sources.two.weight: sources.two: is not there, only 0, 1"),
        ("total_tokens", "got 'total_tokens', expected KEY=VALUE, such as training.seed=1"),
        ("=3", "got '=3', expected KEY=VALUE"),
    ],
)
def test_what_cannot_be(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        pretraining(text, recipe={**RECIPE, "seed": 1})


def test_a_key_twice() -> None:
    with pytest.raises(SettingsError, match="dropout: is given twice, as '0' and '1'"):
        read_assignments(["dropout=0", "dropout=1"])


def test_keyword_arguments() -> None:
    recipe = classify(
        model=Path("other"),
        epochs=2.0,
        label="stars",
        learning_rate=np.float64(1e-4),
        batch_size=np.int64(8),
        training={"patience": 3},
        labels=["a", "b"],
    )
    assert (recipe.model, recipe.training.epochs, recipe.data.label) == ("other", 2, ("stars",))
    assert (recipe.training.learning_rate, recipe.training.batch_size) == (1e-4, 8)
    assert recipe.training.patience == 3 and recipe.data.labels == ("a", "b")
    with pytest.raises(SettingsError, match="epochs: got '2', expected a whole number"):
        classify(epochs="2")
    with pytest.raises(SettingsError, match="unknown key 'epoch'; did you mean 'epochs'"):
        classify(epoch=2)


@given(st.integers(1, 10**15), st.floats(1e-300, 1e300))
def test_numbers_are_read_back(tokens: int, rate: float) -> None:
    recipe = pretraining(f"total_tokens={tokens}", f"peak_learning_rate={rate!r}")
    training = recipe.phases[0].training
    assert (training.total_tokens, training.schedule.peak_learning_rate) == (tokens, rate)


def test_texts_are_texts() -> None:
    assert read_assignments(["a.b = c=d "]) == {"a.b": "c=d"} and Text("x") == "x"
