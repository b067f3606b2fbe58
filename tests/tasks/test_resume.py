"""A pretraining that is killed again and again ends with the bytes of one that never was."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tasks.small import World

from modernbert.files import TEMPORARY_PREFIX
from modernbert.training.log import read_metrics

KILLED = "-9"
ROOT = Path(__file__).resolve().parents[2]


def run(world: World, output: Path, *deaths: str) -> list[str]:
    """Pretrain in one process after another; the exit codes, negative for a signal."""
    program = Path(__file__).with_name("killed_runs.py")
    command = [sys.executable, str(program), str(world.path), str(output), *deaths]
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
def unbroken(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    output = tmp_path_factory.mktemp("unbroken") / "run"
    assert run(world, output) == ["0"]
    return output


@pytest.mark.parametrize(
    "deaths",
    [
        ("step:1", "save:4", "step:6", "kept:8", "step:11", "save:12", "model:0"),
        ("after:random",) * 3,
    ],
    ids=["at chosen moments", "at random moments"],
)
def test_killed_runs_end_with_the_same_bytes(
    tmp_path: Path, world: World, unbroken: Path, deaths: tuple[str, ...]
) -> None:
    # Even the last steps alone, at 0.06 seconds a record, take longer: each death comes in time.
    deaths = tuple(d.replace("random", f"{random.uniform(0.05, 0.4):.3f}") for d in deaths)
    output = tmp_path / "run"
    assert run(world, output, *deaths) == [*[KILLED] * len(deaths), "0"], deaths
    assert files(output / "model") == files(unbroken / "model"), deaths
    assert not list(output.rglob(f"{TEMPORARY_PREFIX}*"))
    for kind, names in (
        ("step", ["step", "tokens", "loss", "gradient_norm", "fill"]),
        ("evaluation", ["step", "held_out_loss", "held_out_accuracy"]),
    ):
        assert rows(output, kind, *names) == rows(unbroken, kind, *names), deaths
