"""A run that is killed again and again ends with the bytes of one that never was."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from modernbert.files import TEMPORARY_PREFIX
from modernbert.training.log import read_metrics

KILLED = "-9"


def run(folder: Path, *deaths: str) -> list[str]:
    """Train in one process after another; the exit codes, negative for a signal."""
    toy = Path(__file__).with_name("toy.py")
    command = [sys.executable, str(toy), str(folder), *deaths]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    assert run(folder) == ["0"]
    return folder


@pytest.mark.parametrize(
    "deaths",
    [
        ("save:4", "step:6", "kept:8", "save:12", "step:29", "save:30"),
        ("step:1", "step:4", "step:5", "kept:20"),
        ("after:random",) * 3,
    ],
    ids=["in saves", "after steps", "at random moments"],
)
def test_killed_runs_end_with_the_same_bytes(
    tmp_path: Path, unbroken: Path, deaths: tuple[str, ...]
) -> None:
    # An unbroken run takes at least 1.5 seconds under these, so each death comes in time.
    deaths = tuple(d.replace("random", f"{random.uniform(0.05, 0.45):.3f}") for d in deaths)
    folder = tmp_path / "run"
    assert run(folder, *deaths) == [*[KILLED] * len(deaths), "0"], deaths
    assert (folder / "weights").read_bytes() == (unbroken / "weights").read_bytes(), deaths
    assert not list(folder.rglob(f"{TEMPORARY_PREFIX}*"))
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == [
        "step-00000028",
        "step-00000030",
    ]
    for kind in ("step", "evaluation"):
        broken, whole = (
            [(row["step"], row.get("loss"), row.get("held_out_loss")) for row in rows]
            for rows in (
                [row for row in read_metrics(place / "metrics.jsonl") if row["kind"] == kind]
                for place in (folder, unbroken)
            )
        )
        assert broken == whole
