"""`modernbert average`: which models, how good they are, and what is written."""

from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.tasks.pretraining.small import World

from modernbert.model.heads import MaskedLanguageModel
from modernbert.settings import parse
from modernbert.tasks.pretraining.pretrain import pretrain
from modernbert.tasks.pretraining.recipe import PretrainingRecipe


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.write(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    """Of a run with three states."""
    output = tmp_path_factory.mktemp("averaged") / "run"
    settings = world.settings(output, training__evaluate_every_steps=4)
    averaging = {"averaging": {"last": 3}}
    pretrain(parse(PretrainingRecipe, {**settings, **averaging}, where="recipe"))
    return output


def test_all_that_a_run_has_kept(run: Run, folder: Path, tmp_path: Path) -> None:
    answer = run("average", folder, "-o", tmp_path / "mean")
    assert (answer.exit_code, answer.stderr) == (0, "")
    names = [line.split()[0] for line in answer.stdout.splitlines()]
    assert names == [*map(str, sorted((folder / "candidates").iterdir())), str(tmp_path / "mean")]
    assert "loss" not in answer.stdout
    MaskedLanguageModel.from_pretrained(tmp_path / "mean")


def test_the_best_with_their_losses(run: Run, folder: Path, world: World, tmp_path: Path) -> None:
    options = ("--held-out", world.held_out, "--json")
    every = run("average", folder, "-o", tmp_path / "all", *options).json
    losses = sorted(part["held_out_loss"] for part in every["parts"])
    chosen = run("average", folder, "-o", tmp_path / "two", "--best", 2, *options).json
    assert sorted(part["held_out_loss"] for part in chosen["parts"]) == losses[:2]
    assert 0 < chosen["held_out_loss"] < 7
    last = run("average", folder, "-o", tmp_path / "last", "--last", 1, *options).json
    (part,) = last["parts"]
    assert part["name"] == every["parts"][-1]["name"]
    assert last["held_out_loss"] == pytest.approx(part["held_out_loss"], abs=1e-6)
    table = run("average", folder, "-o", tmp_path / "x", *options[:2]).stdout
    assert table.splitlines()[0].split() == ["weight", "loss", "accuracy"]
    assert f"{every['held_out_loss']:.4f}" in table.splitlines()[-1]


def test_weights(run: Run, folder: Path, tmp_path: Path) -> None:
    two = (folder / "candidates" / "step-00000004", folder / "model")
    answer = run("average", *two, "-o", tmp_path / "m", "--weight", 1, "--weight", 3, "--json")
    assert [part["weight"] for part in answer.json["parts"]] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--best", "9"), "best: got 9, but there are only 3 models"),
        (("--best", "1"), "best: needs the held-out losses of the models; name held-out shards"),
        (("--weight", "1"), "weights: got 1 for 3 models"),
        (("--held-out", "nowhere"), "nowhere: no"),
        (("--max-tokens", "9"), "--max-tokens: has no effect without --held-out"),
        (("--best", "0"), "--best: got 0, expected"),
    ],
)
def test_wrong_options(
    run: Run, folder: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    answer = run("average", folder, "-o", tmp_path / "mean", *options)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert answer.stderr.startswith("error: ") and message in answer.stderr
    assert not (tmp_path / "mean").exists()


def test_an_output_that_is_there(run: Run, folder: Path) -> None:
    answer = run("average", folder, "-o", folder / "model")
    assert answer.exit_code == 2 and "already exists" in answer.stderr
