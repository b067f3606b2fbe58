"""Cards of pretrained models and of averages: fit for the hub, and without paths."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.pretraining.small import World

from modernbert.hub import check_folder
from modernbert.model.config import EncoderConfig
from modernbert.settings import parse
from modernbert.tasks.pretraining.averaging import AveragedPart
from modernbert.tasks.pretraining.card import average_card, pretraining_card
from modernbert.tasks.pretraining.pretrain import pretrain
from modernbert.tasks.pretraining.recipe import PretrainingRecipe
from modernbert.training.log import read_metrics

CONFIG = EncoderConfig.preset("base")
FIGURES = {"held_out_loss": 2.34567, "held_out_accuracy": 0.4567, "seconds": 3.0}
PARTS = [
    AveragedPart(folder=Path("/a/b/step-7"), figures=FIGURES),
    AveragedPart(folder=Path("c"), figures={}),
]


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def phases_in(card: str) -> list[list[str]]:
    rows = re.findall(r"^\| (.*) \|$", card, re.MULTILINE)
    return [row.split(" | ") for row in rows[1:]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, world: World) -> PretrainingRecipe:
    recipe = world.phased(tmp_path_factory.mktemp("cards") / "mine")
    assert pretrain(recipe).status == "finished"
    return recipe


def test_the_model_of_each_phase_can_be_pushed(finished: PretrainingRecipe, world: World) -> None:
    for number, name in enumerate(("short", "extension", "model"), 1):
        folder = finished.output / name
        assert check_folder(folder) == "model"
        card = card_of(folder)
        assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: fill-mask\n")
        assert "\n# mine\n" in card
        assert len(phases_in(card)) == number
        assert str(finished.output.parent) not in card
        assert str(world.sources[0].parent) not in card


def test_the_figures_are_those_of_the_phases_last_evaluation(finished: PretrainingRecipe) -> None:
    rows = list(read_metrics(finished.output / "metrics.jsonl"))
    for phase, name in (("short", "short"), ("extension", "extension"), ("decay", "model")):
        own = [row for row in rows if row["kind"] == "evaluation" and row["phase"] == phase]
        card = card_of(finished.output / name)
        assert f"- loss {own[-1]['held_out_loss']:.3f}\n" in card
        assert "seconds" not in card


def test_what_it_was_trained_on(finished: PretrainingRecipe, world: World) -> None:
    card = pretraining_card(finished, 2, CONFIG, FIGURES)
    first, second = (path.name for path in world.sources)
    assert phases_in(card) == [
        ["short", "1,500", "48", "384", "30%", "0.01", f"{first} 67%, {second} 33%"],
        ["extension", "1,500", "80", "384", "30%", "0.005", f"{first} 67%, {second} 33%"],
        ["decay", "1,500", "80", "384", "15%", "0.005", second],
    ]
    assert "149,655,232 parameters: 22 layers of width 768" in card
    assert "## On held-out text\n\n- loss 2.346\n- accuracy 45.7%\n" in card
    assert "- torch: " in card


def test_without_evaluation_and_with_another_beginning(tmp_path: Path, world: World) -> None:
    settings: dict[str, Any] = world.settings(tmp_path / "run")
    settings["model"] = {"start": "someone/else"}
    ramp = {"first_bins": 2, "increment_bins": 2, "tokens": 900}
    settings["batch"] = {"bins_per_step": 8, "ramp": ramp}
    recipe = parse(PretrainingRecipe, settings, where="recipe")
    lower = replace(recipe.phases[0], name="lower", start_from="pretraining")
    card = pretraining_card(replace(recipe, phases=(*recipe.phases, lower)), 1, CONFIG, {})
    assert "held-out" not in card
    assert "It began with the weights of `else`." in card
    assert [row[0] for row in phases_in(card)] == ["pretraining", "lower, from pretraining"]
    assert phases_in(card)[0][3] == "up to 1,024"


def test_an_average_names_its_parts(finished: PretrainingRecipe) -> None:
    told = (
        "The weights are the mean of 2 states of a training:\n\n"
        "- step-7, weight 1, loss 2.346, accuracy 45.7%\n"
        "- c, weight 1\n"
    )
    assert told in pretraining_card(finished, 2, CONFIG, FIGURES, PARTS)
    alone = average_card(CONFIG, {}, PARTS, name="mean")
    assert told in alone and "\n# mean\n" in alone and "/a/b" not in alone
