"""What a user can get wrong, verb by verb: one line on stderr, exit code 2, and no traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tests.journey.command_line import call, write_recipe
from tests.journey.conftest import Journey


def complain(*arguments: object) -> str:
    """What a call that must fail says."""
    answer = call(*arguments)
    assert answer.exit_code == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1
    return answer.stderr.removeprefix("error: ").removesuffix("\n")


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture
def settings(journey: Journey, tmp_path: Path) -> dict[str, Any]:
    """Those of the journey, for a run of its own."""
    return {**journey.settings, "output": str(tmp_path / "run")}


@pytest.fixture
def recipe(settings: dict[str, Any], tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "recipe.toml", settings)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dropout =", "dropuot =", "unknown key 'dropuot'; did you mean 'dropout'?"),
        ("bins_per_step =", "bins_a_step =", "batch: unknown key 'bins_a_step'; did you mean"),
        ("rate = 0.3", 'rate = "much"', "masking: rate: got 'much', expected a number"),
        ("rate = 0.3", "rate = 1.5", "masking: rate: got 1.5, expected above 0 and at most 1"),
        ("bin_tokens = 128", "bin_tokens = 1.5", "bin_tokens: got 1.5, expected a whole number"),
        ("output =", "# ", "key 'output' is missing"),
        ("[model]", "[model", "not a readable TOML file"),
    ],
)
def test_a_wrong_recipe(recipe: Path, old: str, new: str, message: str) -> None:
    changed(recipe, old, new)
    said = complain("pretrain", recipe)
    assert said.startswith(f"{recipe}: ") and message in said


def test_no_recipe(tmp_path: Path) -> None:
    assert complain("pretrain", tmp_path / "no.toml") == f"{tmp_path / 'no.toml'}: no such file"


def test_a_recipe_that_names_what_is_not_there(settings: dict[str, Any], tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    for key, value in (
        ("tokenizer", nowhere),
        ("sources", [{"shards": nowhere}]),
        ("evaluation", {"shards": nowhere}),
        ("model", {"start": nowhere}),
    ):
        recipe = write_recipe(tmp_path / "recipe.toml", {**settings, key: value})
        assert complain("pretrain", recipe).startswith(f"{nowhere}: no")
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_recipe(journey: Journey, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", {**journey.settings, "seed": 1})
    said = complain("pretrain", recipe)
    assert said.startswith(f"{journey.output}: belongs to another recipe: phases.")
    assert "seed is 0 there and 1" in said


def test_another_tokenizer(settings: dict[str, Any], journey: Journey, tmp_path: Path) -> None:
    other = tmp_path / "tokenizer"
    shutil.copytree(journey.world.tokenizer, other)
    changed(other / "tokenizer.json", "[unused0]", "[spare0]")
    recipe = write_recipe(tmp_path / "recipe.toml", {**settings, "tokenizer": str(other)})
    assert f"made with another tokenizer than {other}" in complain("pretrain", recipe)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [(flip, "its bytes have changed"), (truncate, "truncated: got "), (Path.unlink, "missing")],
)
def test_damaged_shards(
    settings: dict[str, Any],
    journey: Journey,
    tmp_path: Path,
    damage: Callable[[Path], None],
    message: str,
) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(journey.world.path / "shards", shards)
    manifest = json.loads((shards / "manifest.json").read_text())
    file = shards / manifest["shards"][0]["tokens"]["name"]
    damage(file)
    del settings["evaluation"]  # which would come first, and say something
    recipe = write_recipe(
        tmp_path / "recipe.toml", {**settings, "sources": [{"shards": str(shards)}]}
    )
    said = complain("pretrain", recipe)
    assert said.startswith(f"{file}: ") and message in said


def test_shards_of_another_program(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"version": 1}')
    recipe = write_recipe(
        tmp_path / "recipe.toml", {**settings, "sources": [{"shards": str(tmp_path)}]}
    )
    assert "another program's format" in complain("pretrain", recipe)


def test_a_sequence_longer_than_the_model(settings: dict[str, Any], tmp_path: Path) -> None:
    model = {**settings["model"], "max_seqlen": 16}
    recipe = write_recipe(tmp_path / "recipe.toml", {**settings, "model": model})
    assert "packing.max_seqlen: got 48, but the model is made for 16" in complain(
        "pretrain", recipe
    )


def test_texts_that_cannot_be_filled(journey: Journey) -> None:
    assert "no [MASK] in 'one two'" in complain("fill-mask", journey.model, "one two")
    assert "the model reads 48" in complain("fill-mask", journey.model, "[MASK] " * 50)


def test_models_that_cannot_be_read(journey: Journey, tmp_path: Path) -> None:
    for verb in (("fill-mask", tmp_path / "nowhere", "[MASK]"), ("info", tmp_path / "nowhere")):
        assert f"{tmp_path / 'nowhere'}: no such " in complain(*verb)
    model = tmp_path / "model"
    shutil.copytree(journey.model, model)
    weights = load_file(model / "model.safetensors")

    def said_of(tensors: dict[str, Any]) -> str:
        save_file(tensors, model / "model.safetensors")
        return complain("fill-mask", model, "[MASK]")

    norm = "model.final_norm.weight"
    assert f"lacks {norm}" in said_of({k: v for k, v in weights.items() if k != norm})
    assert "model.extra" in said_of({**weights, "model.extra": weights[norm].clone()})
    assert f"{norm}: got (8,), expected (64,)" in said_of({**weights, norm: weights[norm][:8]})
    truncate(model / "model.safetensors")
    assert "damaged or not a safetensors file" in complain("fill-mask", model, "[MASK]")
    (model / "model.safetensors").unlink()
    assert "holds no weights" in complain("fill-mask", model, "[MASK]")
    changed(model / "config.json", '"hidden_size": 64', '"hidden_size": 1000000000')
    assert "hidden_size: got 1000000000" in complain("info", model)
