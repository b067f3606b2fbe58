"""A pretraining that is killed again and again ends with the bytes of one that never was."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tasks.pretraining.small import World

from modernbert.files import TEMPORARY_PREFIX
from modernbert.training.log import read_metrics

KILLED = "-9"
ROOT = Path(__file__).resolve().parents[3]


def run(world: World, output: Path, kind_of_run: str, *deaths: str) -> list[str]:
    """Pretrain in one process after another; the exit codes, negative for a signal."""
    program = Path(__file__).with_name("killed_runs.py")
    command = [sys.executable, str(program), str(world.path), str(output), kind_of_run, *deaths]
    answer = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        timeout=120,
    )
    return answer.stdout.split()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows(output: Path, kind: str, *names: str) -> list[list[float]]:
    metrics = read_metrics(output / "metrics.jsonl")
    return [[row[name] for name in names] for row in metrics if row["kind"] == kind]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, world: World) -> dict[str, Path]:
    """The folder of an unbroken run of each kind."""
    outputs = {kind: tmp_path_factory.mktemp(kind) / "run" for kind in ("one", "three")}
    for kind, output in outputs.items():
        assert run(world, output, kind) == ["0"]
    return outputs


@pytest.mark.parametrize(
    ("kind_of_run", "models", "deaths"),
    [
        (
            "one",
            ["model"],
            "step:1 save:4 step:6 kept:8 step:11 save:12 model:12",
        ),
        ("one", ["model"], "after:random after:random after:random"),
        # The borders are at 4, where a checkpoint would come anyway, and at 9; the end is at 13.
        (
            "three",
            ["short", "extension", "model"],
            "step:4 save:4 model:4 phase:4 step:5 kept:8 save:9 model:9 phase:9 step:10 model:13",
        ),
        ("three", ["short", "extension", "model"], "after:random after:random after:random"),
    ],
    ids=["at chosen moments", "at random moments", "at borders of phases", "three at random"],
)
def test_killed_runs_end_with_the_same_bytes(
    tmp_path: Path,
    world: World,
    unbroken: dict[str, Path],
    kind_of_run: str,
    models: list[str],
    deaths: str,
) -> None:
    # Even the last steps alone, at 0.06 seconds a record, take longer: each death comes in time.
    moments = [d.replace("random", f"{random.uniform(0.05, 0.4):.3f}") for d in deaths.split()]
    output, whole = tmp_path / "run", unbroken[kind_of_run]
    assert run(world, output, kind_of_run, *moments) == [*[KILLED] * len(moments), "0"], moments
    for model in models:
        assert files(output / model) == files(whole / model), moments
    assert not list(output.rglob(f"{TEMPORARY_PREFIX}*"))
    for kind, names in (
        ("phase", ["phase", "step", "tokens"]),
        ("step", ["phase", "step", "tokens", "loss", "gradient_norm", "fill"]),
        ("evaluation", ["phase", "step", "held_out_loss", "held_out_accuracy"]),
    ):
        assert rows(output, kind, *names) == rows(whole, kind, *names), moments
