"""Recipes: what a TOML file may say, and what is said about one that is wrong."""

from pathlib import Path
from typing import Any

import pytest
from tests.tasks.pretraining.small import World

import modernbert.tasks.pretraining.recipe
from modernbert.errors import ConfigError, SettingsError
from modernbert.model.config import EncoderConfig, layer_kinds
from modernbert.model.heads import MaskedLanguageModel
from modernbert.settings import load, parse, to_toml
from modernbert.tasks.pretraining.recipe import ModelSettings, PretrainingRecipe

BASE_PARAMETERS = 149_655_232


def example() -> str:
    """The recipe in the module's docstring."""
    text = modernbert.tasks.pretraining.recipe.__doc__ or ""
    return "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))


def config(packed: int = 1024, **settings: Any) -> EncoderConfig:
    """The numbers of a model for sequences up to `packed`."""
    return ModelSettings(**settings).config(max_seqlen=packed)


def test_the_example_in_the_docstring(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(example())
    recipe = load(PretrainingRecipe, tmp_path / "recipe.toml")
    assert recipe.output == Path("runs/books")
    assert [phase.name for phase in recipe.phases] == ["pretraining", "decay"]
    for phase in recipe.phases:
        assert [(str(each.shards), each.weight) for each in phase.sources] == [
            ("shards/books", 2.0),
            ("shards/code", 1.0),
        ]


def test_what_is_left_out_is_as_in_the_paper(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(example())
    recipe = load(PretrainingRecipe, tmp_path / "recipe.toml").phases[0]
    assert recipe.dropout == 0.1 and recipe.masking.rate == 0.3
    assert recipe.packing.max_seqlen == 1024
    training = recipe.training
    assert (training.optimizer, training.beta1, training.beta2, training.eps) == (
        "adamw",
        0.9,
        None,
        None,
    )
    assert training.weight_decay == 1e-5
    model = recipe.model.config(max_seqlen=recipe.packing.max_seqlen)
    assert model.num_parameters(head=True) == BASE_PARAMETERS
    assert (model.global_theta, model.local_theta, model.max_seqlen) == (10_000, 10_000, 1024)


def test_a_recipe_survives_toml(tmp_path: Path, world: World, output: Path) -> None:
    recipe = world.recipe(output, model__global_theta=20_000.0, evaluation__seed=7)
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    assert load(PretrainingRecipe, tmp_path / "recipe.toml") == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokeniser": "x"}, "recipe: unknown key 'tokeniser'; did you mean 'tokenizer'?"),
        ({"batch__bins_a_step": 3}, "recipe: batch: unknown key 'bins_a_step'; did you mean"),
        ({"dropout": "0.1"}, "recipe: dropout: got '0.1', expected a number"),
        ({"dropout": 1.0}, "recipe: dropout: got 1.0, expected 0 or more and below 1"),
        ({"sources": []}, "recipe: sources: got (), expected a length of 1 or more"),
        ({"sources": "shards"}, "recipe: sources: got 'shards', expected a list"),
        ({"seed": -1}, "recipe: seed: got -1"),
        ({"max_logits_bytes": 0}, "recipe: max_logits_bytes: got 0"),
        ({"evaluation__max_tokens": 0}, "recipe: evaluation: max_tokens: got 0"),
        ({"evaluation__seed": -1}, "recipe: evaluation: seed: got -1"),
        ({"batch__bins_per_step": 0}, "recipe: batch: bins_per_step: got 0"),
        ({"batch__bins_per_micro_batch": 0}, "recipe: batch: bins_per_micro_batch: got 0"),
        ({"model__preset": "huge"}, "recipe: model: preset: got 'huge', expected one of tiny,"),
        ({"model__start": "x"}, "recipe: model: expected either preset, "),
        ({"model": {}}, "recipe: model: expected either preset, "),
        ({"model": {"start": "x", "hidden_size": 64}}, "recipe: model: hidden_size: the model of"),
        ({"model__seed": -1}, "recipe: model: seed: got -1"),
        ({"model__num_layers": 0}, "recipe: model: num_layers: got 0"),
        ({"training__total_tokens": 10}, "recipe: training: warmup_tokens (800)"),
    ],
)
def test_wrong_recipes(world: World, output: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        world.recipe(output, **change)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_that_is_none(world: World, output: Path, weight: float) -> None:
    settings = world.settings(output)
    settings["sources"][1]["weight"] = weight
    with pytest.raises(SettingsError, match=r"^recipe: sources\[1\]: weight: got "):
        parse(PretrainingRecipe, settings, where="recipe")


def test_sizes_of_a_preset() -> None:
    assert config(preset="tiny").num_layers == 6
    changed = config(
        preset="tiny", num_layers=4, global_every=2, hidden_size=128, num_heads=2, window=32
    )
    assert changed.layer_kinds == ("global", "local", "global", "local")
    assert (changed.hidden_size, changed.num_heads, changed.window) == (128, 2, 32)
    assert changed.intermediate_size == config(preset="tiny").intermediate_size


def test_layers_and_their_kinds_may_change_alone() -> None:
    assert config(preset="base", global_every=4).layer_kinds == layer_kinds(22, global_every=4)
    assert config(preset="base", num_layers=5).layer_kinds == layer_kinds(5, global_every=3)


def test_lengths_and_angles() -> None:
    assert config(256, preset="tiny").max_seqlen == 256
    assert config(256, preset="tiny", max_seqlen=8192).max_seqlen == 8192
    extended = config(preset="tiny", global_theta=160_000.0)
    assert (extended.global_theta, extended.local_theta) == (160_000.0, 10_000.0)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="hidden_size 100 is not a multiple of num_heads 12"):
        config(preset="base", hidden_size=100)


def test_the_numbers_of_a_model_to_start_from(tmp_path: Path) -> None:
    started = EncoderConfig.preset(
        "tiny", vocab_size=64, hidden_size=32, num_heads=2, intermediate_size=32, max_seqlen=128
    )
    MaskedLanguageModel(started).save_pretrained(tmp_path)
    assert config(64, start=str(tmp_path)) == started
    extended = config(512, start=str(tmp_path), max_seqlen=512, global_theta=160_000.0)
    assert (extended.max_seqlen, extended.global_theta) == (512, 160_000.0)
    assert extended.layer_kinds == started.layer_kinds
