"""A run that is killed again and again ends with the bytes of one that never was."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from modernbert.files import TEMPORARY_PREFIX
from modernbert.training.log import read_metrics

KILLED = "-9"


def run(folder: Path, kind_of_run: str, *deaths: str) -> list[str]:
    """Train in one process after another; the exit codes, negative for a signal."""
    toy = Path(__file__).with_name("toy.py")
    command = [sys.executable, str(toy), str(folder), kind_of_run, *deaths]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of an unbroken run of each kind."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("one", "three", "adamw", "muon")}
    for kind, folder in folders.items():
        assert run(folder, kind) == ["0"]
    return folders


@pytest.mark.parametrize(
    ("kind_of_run", "deaths"),
    [
        ("one", ("save:4", "step:6", "kept:8", "save:12", "step:29", "save:30")),
        ("one", ("step:1", "step:4", "step:5", "kept:20")),
        ("one", ("after:random",) * 3),
        # The borders are at 10 and 19.
        ("three", ("step:9", "step:10", "evaluation:10", "save:10", "kept:10", "end:10")),
        ("three", ("phase:10", "step:11", "step:18", "save:19", "kept:19", "phase:19", "step:20")),
        ("three", ("after:random",) * 3),
        ("adamw", ("step:6", "save:12")),
        ("muon", ("step:6", "save:12", "kept:20")),
    ],
    ids=[
        *("saves", "steps", "at random", "at a border", "after a border", "three at random"),
        *("AdamW", "Muon"),
    ],
)
def test_killed_runs_end_with_the_same_bytes(
    tmp_path: Path, unbroken: dict[str, Path], kind_of_run: str, deaths: tuple[str, ...]
) -> None:
    # An unbroken run takes at least 1.5 seconds under these, so each death comes in time.
    deaths = tuple(d.replace("random", f"{random.uniform(0.05, 0.45):.3f}") for d in deaths)
    folder, whole_run = tmp_path / "run", unbroken[kind_of_run]
    assert run(folder, kind_of_run, *deaths) == [*[KILLED] * len(deaths), "0"], deaths
    assert (folder / "weights").read_bytes() == (whole_run / "weights").read_bytes(), deaths
    assert not list(folder.rglob(f"{TEMPORARY_PREFIX}*"))
    assert names(folder / "checkpoints") == names(whole_run / "checkpoints")
    for kind in ("phase", "step", "evaluation"):
        broken, whole = (
            [
                (row["phase"], row["step"], row.get("loss"), row.get("held_out_loss"))
                for row in read_metrics(place / "metrics.jsonl")
                if row["kind"] == kind
            ]
            for place in (folder, whole_run)
        )
        assert broken == whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
