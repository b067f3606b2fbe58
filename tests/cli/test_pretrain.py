"""The verbs of pretraining: what they show of a run, its page, and the average of its models."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.cli.conftest import Run
from tests.report.example_run import write_run
from tests.tasks.pretraining.small import World
from torch import Tensor, nn

from modernbert.cli.pretrain import PretrainingWatch
from modernbert.cli.terminal import Meter
from modernbert.model.heads import MaskedLanguageModel
from modernbert.settings import parse
from modernbert.tasks.pretraining.pretrain import pretrain
from modernbert.tasks.pretraining.recipe import PretrainingRecipe
from modernbert.training.trainer import Phase, Progress, Step, Trainer, TrainingSettings
from modernbert.training.training_settings import ScheduleSettings


class Regression:
    """A task of two lines, so that the records are those of the real trainer."""

    def steps(self, progress: Progress) -> Iterator[Step]:
        for number in range(progress.step + 1, 100):
            place = Progress(step=number, tokens=number * 100, position=number)
            yield Step(micro_batches=[0], progress=place, num_targets=1, num_tokens=99, fill=0.99)

    def loss(self, module: nn.Module, _micro_batch: object, *, step: int) -> Tensor:
        return module(torch.ones(1, 2)).square().sum() + step

    def evaluate(self, _module: nn.Module) -> dict[str, float]:
        return {"held_out_loss": 6.631, "held_out_accuracy": 0.0451}


class Clock:
    """Eight seconds pass from one look to the next."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 8
        return self.now


def run(folder: Path, total_tokens: int) -> None:
    settings = TrainingSettings(
        total_tokens=total_tokens,
        schedule=ScheduleSettings(peak_learning_rate=1e-3),
        evaluate_every_steps=4,
        checkpoint_every_steps=2,
    )
    with Meter("pretraining", clock=Clock()) as meter:
        module = nn.Linear(2, 1)
        phase = Phase(name="only", task=Regression(), settings=settings)
        Trainer(module, [phase], folder, observers=[PretrainingWatch(meter)]).run()


def test_steps_and_evaluations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, 600)
    captured = capsys.readouterr()
    assert captured.out == ""
    shown = captured.err.splitlines()
    evaluations = [line for line in shown if line.startswith("step")]
    assert evaluations == [
        "step      0       0 tokens  held-out loss 6.631  accuracy 4.5%  (0:00)",
        "step      4     400 tokens  held-out loss 6.631  accuracy 4.5%  (0:00)",
        "step      6     600 tokens  held-out loss 6.631  accuracy 4.5%  (0:00)",
    ]
    steps = [line for line in shown if line.startswith("pretraining")]
    assert len(steps) == 3
    assert all("tokens/s  99.0% full" in line and "loss " in line for line in steps)
    assert "50%" in steps[1] and "left" in steps[1]


def test_what_is_set_aside_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, 600)
    newest = tmp_path / "checkpoints" / "step-00000006" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    capsys.readouterr()
    run(tmp_path, 600)
    shown = capsys.readouterr().err
    assert "warning: " in shown
    assert "going on from step 4\n" in shown


def test_what_is_rare_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        {"kind": "start", "step": 0, "total_tokens": 100},
        {"kind": "phase", "step": 0, "phase": "first", "phase_tokens": 50},
        {"kind": "phase", "step": 7, "phase": "decay", "phase_tokens": 50_000},
        {"kind": "skipped", "step": 8, "reason": "the loss is nan, the gradient norm 1.0"},
        {"kind": "spike", "step": 9, "loss": 9.0, "median": 2.5},
        {"kind": "went_back", "step": 10, "to_step": 4, "skipped_steps": 6},
        {
            "kind": "averaging",
            "step": 11,
            "held_out_loss": 2.0,
            "parts": [{"held_out_loss": 2.1}, {"held_out_loss": 2.25}],
            "path": "run/averaged",
        },
        {"kind": "checkpoint", "step": 12},
    ]
    with Meter("pretraining", clock=Clock()) as meter:
        watch = PretrainingWatch(meter)
        for record in records:
            watch(record)
    assert capsys.readouterr().err.splitlines() == [
        "phase decay: 50.0k tokens",
        "step      8  skipped: the loss is nan, the gradient norm 1.0",
        "step      9  spike: the loss is 9.000, usual is 2.500",
        "step     10  back to the weights of step 4 after 6 skipped steps",
        "average of 2 states  held-out loss 2.000, alone 2.100, 2.250  run/averaged",
    ]


def test_values_over_a_recipe_are_checked_as_strictly(run: Run) -> None:
    answer = run("pretrain", "start", "training.total_token=1e6")
    assert answer.exit_code == 2
    assert "unknown key 'total_token'; did you mean 'total_tokens'?" in answer.stderr
    answer = run("pretrain", "continue", "total_tokens=3e9", "compile=2")
    assert "compile: got '2', expected true or false" in answer.stderr


def test_the_page_of_a_run(run: Run, tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    answer = run("report", tmp_path / "run")
    assert (answer.exit_code, answer.stdout) == (0, f"{tmp_path}/run/report.html\n")
    assert (tmp_path / "run" / "report.html").exists()


def test_a_folder_that_is_no_run(run: Run, tmp_path: Path) -> None:
    answer = run("report", tmp_path)
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error: ") and "give the folder of a run" in answer.stderr


def test_the_page_of_a_fine_tuning_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run" / "runs").mkdir(parents=True)
    answer = run("report", tmp_path / "run")
    assert answer.exit_code == 2 and "repeat the command that began it" in answer.stderr
    (tmp_path / "run" / "report.html").write_text("a page")
    answer = run("report", tmp_path / "run")
    assert (answer.exit_code, answer.stdout) == (0, f"{tmp_path}/run/report.html\n")
    assert (tmp_path / "run" / "report.html").read_text() == "a page"


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
