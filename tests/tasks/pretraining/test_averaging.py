"""Averages of models and of a run's states."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tasks.pretraining.small import World

from modernbert.errors import CheckpointError, InputError, SettingsError, ShardError
from modernbert.model.heads import MaskedLanguageModel
from modernbert.settings import parse
from modernbert.tasks.pretraining.averaging import (
    AveragedPart,
    HeldOut,
    average_parts,
    best,
    candidates,
    measured,
    parts_of,
)
from modernbert.tasks.pretraining.models import load_model, load_tokenizer
from modernbert.tasks.pretraining.pretrain import pretrain
from modernbert.tasks.pretraining.recipe import AveragingSettings, PretrainingRecipe
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.training import checkpoint
from modernbert.training.log import read_metrics


def rows(recipe: PretrainingRecipe, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_metrics(recipe.output / "metrics.jsonl") if row["kind"] == kind]


def averaging(world: World, output: Path, **changes: Any) -> PretrainingRecipe:
    """12 steps of which 8 are evaluated after the first: 2, 4, ... and 12 or so."""
    settings = world.settings(output, training__evaluate_every_steps=2, **changes)
    return parse(PretrainingRecipe, {**settings, "averaging": {"last": 1, "best": 2}}, where="r")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, world: World) -> PretrainingRecipe:
    recipe = averaging(world, tmp_path_factory.mktemp("averaged") / "run")
    assert pretrain(recipe).status == "finished"
    return recipe


def test_a_run_ends_with_the_average_of_its_last_and_its_best(finished: PretrainingRecipe) -> None:
    evaluations = {row["step"]: row["held_out_loss"] for row in rows(finished, "evaluation")}
    last, others = max(evaluations), sorted(evaluations, key=evaluations.__getitem__)
    others = [step for step in others if step not in (0, last)][:2]
    kept = candidates(finished.output / "candidates")
    expected = [f"step-{step:08d}" for step in sorted([*others, last])]
    assert [part.folder.name for part in kept] == expected
    (record,) = rows(finished, "averaging")
    assert [part["name"] for part in record["parts"]] == expected
    assert [part["held_out_loss"] for part in record["parts"]] == [
        evaluations[int(name.removeprefix("step-"))] for name in expected
    ]
    note = json.loads((finished.output / "averaged" / "averaging.json").read_text())
    assert note == {name: record[name] for name in note}
    models = [MaskedLanguageModel.from_pretrained(part.folder) for part in kept]
    averaged = MaskedLanguageModel.from_pretrained(finished.output / "averaged")
    mean = torch.stack([model.decoder_weight for model in models]).mean(0)
    torch.testing.assert_close(averaged.decoder_weight, mean)
    newest = MaskedLanguageModel.from_pretrained(finished.output / "model")
    assert torch.equal(newest.decoder_weight, models[-1].decoder_weight)


def test_a_run_stopped_anywhere_ends_with_the_same_average(
    tmp_path: Path, world: World, finished: PretrainingRecipe
) -> None:
    recipe = averaging(world, tmp_path / "run")
    for stop in (2, 5, 9, 12):

        def die(record: dict[str, Any], stop: int = stop) -> None:
            if record["kind"] in ("step", "evaluation") and record["step"] == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pretrain(recipe, [die])
    pretrain(recipe)
    for name in ("candidates", "averaged"):
        broken, whole = (
            {
                str(path.relative_to(each.output)): path.read_bytes()
                for path in (each.output / name).rglob("*")
                if path.is_file()
            }
            for each in (recipe, finished)
        )
        assert broken == whole and broken


def test_a_finished_run_gives_its_average_again(finished: PretrainingRecipe) -> None:
    folder = finished.output / "averaged"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert pretrain(finished).status == "already_finished"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_only_the_named_phase_is_averaged(tmp_path: Path, world: World) -> None:
    settings = world.settings(tmp_path / "run", training__total_tokens=1_500)
    settings["training"]["evaluate_every_steps"] = 1
    settings["phases"] = [{"name": "one"}, {"name": "two"}]
    settings["averaging"] = {"phase": "one", "last": 2}
    recipe = parse(PretrainingRecipe, settings, where="recipe")
    pretrain(recipe)
    steps = [row["step"] for row in rows(recipe, "step") if row["phase"] == "one"]
    kept = [part.folder.name for part in candidates(recipe.output / "candidates")]
    assert kept == [f"step-{step:08d}" for step in steps[-2:]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"last": 1}, r"averaging: got last = 1 and best = 0, expected at least two"),
        ({"best": -1}, "averaging: best: got -1"),
        ({"last": 2, "phase": "decay"}, r"averaging: phase: got 'decay', expected one of"),
    ],
)
def test_wrong_averages(world: World, output: Path, table: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse(PretrainingRecipe, {**world.settings(output), "averaging": table}, where="recipe")


def test_an_average_needs_evaluations(world: World, output: Path) -> None:
    settings = {**world.settings(output), "averaging": {"last": 2}}
    del settings["evaluation"]
    with pytest.raises(SettingsError, match="averaging: pretraining: has no evaluation"):
        parse(PretrainingRecipe, settings, where="recipe")


@given(
    losses=st.lists(st.integers(0, 4).map(float), min_size=1, max_size=9),
    last=st.integers(0, 3),
    number_best=st.integers(0, 3),
)
def test_choosing_on_the_way_is_choosing_at_the_end(
    losses: list[float], last: int, number_best: int
) -> None:
    if last + number_best < 2:
        return
    settings = AveragingSettings(last=last, best=number_best)
    named = {f"{number:03d}": loss for number, loss in enumerate(losses)}
    kept: dict[str, float] = {}
    for name, loss in named.items():
        chosen = settings.chosen({**kept, name: loss})
        kept = {each: named[each] for each in chosen}
    assert set(kept) == settings.chosen(named)
    assert len(kept) == min(len(named), last + number_best)


def test_checkpoints_are_models_too(finished: PretrainingRecipe) -> None:
    folder = sorted((finished.output / "checkpoints").iterdir())[-1]
    from_checkpoint, delivered = (load_model(f) for f in (folder, finished.output / "model"))
    assert from_checkpoint.config == delivered.config
    for name, weight in delivered.state_dict().items():
        assert torch.equal(weight, from_checkpoint.state_dict()[name])
    fingerprint = Tokenizer.from_pretrained(finished.tokenizer).fingerprint
    assert load_tokenizer(folder).fingerprint == fingerprint
    assert load_tokenizer(finished.output / "model").fingerprint == fingerprint


def test_a_damaged_checkpoint_is_no_part(tmp_path: Path, world: World) -> None:
    recipe = world.recipe(tmp_path / "run", training__total_tokens=900)
    pretrain(recipe)
    (folder,) = (recipe.output / checkpoint.FOLDER).iterdir()
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"is damaged: model\.safetensors"):
        average_parts(parts_of([folder]))


def test_what_a_path_leads_to(finished: PretrainingRecipe, tmp_path: Path) -> None:
    run = finished.output
    in_run = [part.folder for part in parts_of([run])]
    assert in_run == sorted((run / "candidates").iterdir())
    in_checkpoints = [part.folder.parent.name for part in parts_of([run / "checkpoints"])]
    assert in_checkpoints == ["checkpoints"] * 2
    assert [p.weight for p in parts_of([run / "model", run / "averaged"], [1, 3])] == [1, 3]
    with pytest.raises(InputError, match="weights: got 1 for 3 models"):
        parts_of([run], [1.0])
    with pytest.raises(InputError, match="neither the folder of a model nor a folder"):
        parts_of([tmp_path])


def test_the_best_by_held_out_loss(finished: PretrainingRecipe, world: World) -> None:
    held_out = HeldOut(world.held_out, Tokenizer.from_pretrained(finished.tokenizer))
    parts = measured(parts_of([finished.output]), held_out)
    losses = [part.figures["held_out_loss"] for part in parts]
    assert len(set(losses)) == 3
    assert [p.figures["held_out_loss"] for p in best(parts, 1)] == [min(losses)]
    with pytest.raises(InputError, match="best: got 4, but there are only 3 models"):
        best(parts, 4)
    with pytest.raises(InputError, match="best: needs the held-out losses"):
        best(parts_of([finished.output]), 1)
    with pytest.raises(ShardError):
        HeldOut(world.path / "nowhere", Tokenizer.from_pretrained(world.tokenizer))


def test_weights_of_parts(finished: PretrainingRecipe) -> None:
    one, other = (part.folder for part in parts_of([finished.output])[:2])
    mixed = average_parts(
        [
            AveragedPart(folder=one, weight=3.0, figures={}),
            AveragedPart(folder=other, weight=1.0, figures={}),
        ]
    )
    first, second = (
        MaskedLanguageModel.from_pretrained(each).decoder_weight for each in (one, other)
    )
    torch.testing.assert_close(mixed.decoder_weight, 0.75 * first + 0.25 * second)
    with pytest.raises(InputError, match="weight: got 0"):
        average_parts([AveragedPart(folder=one, weight=0.0, figures={})])
    with pytest.raises(InputError, match="no models"):
        average_parts([])
