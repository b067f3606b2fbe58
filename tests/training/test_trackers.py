"""Trackers: each step once however often a run is resumed, and never in a training's way."""

import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from modernbert.errors import MissingPackageError, TrackerWarning
from modernbert.training import trackers
from modernbert.training.log import MetricsLog, Record
from modernbert.training.trackers import TrackedRun, tracking
from modernbert.training.training_settings import LogSettings

START = {"kind": "start", "step": 0, "evaluated_step": -1, "about": {"device": "a CPU"}}
CONFIG = {"recipe": {"training": {"total_tokens": 100}, "sources": [{"shards": "a"}]}}


class Recording:
    """A tracker that keeps what it is told, by the id of the run."""

    runs: ClassVar[dict[str, list[tuple[int, dict[str, float]]]]] = {}
    told: ClassVar[list[Any]] = []

    def __init__(self, run: TrackedRun, known_id: str | None) -> None:
        self.id = known_id or f"run{len(self.runs)}"
        self.runs.setdefault(self.id, [])
        self.told.append((run.project, run.name, run.config))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.runs[self.id].append((step, dict(values)))

    def finish(self, *, failed: bool) -> None:
        self.told.append("failed" if failed else "finished")


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(trackers, "is_installed", lambda _: True)
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Recording)
    monkeypatch.setattr(trackers, "PATIENCE_SECONDS", 5.0)
    Recording.runs.clear()
    Recording.told.clear()
    yield


def step(number: int) -> Record:
    return {"kind": "step", "step": number, "phase": "one", "loss": 1 / number, "tokens": number}


def train(folder: Path, *records: Record, kind: Any = "wandb", is_first: bool = True) -> None:
    log = MetricsLog(folder / "metrics.jsonl")
    settings = LogSettings(to=(kind,) if kind else ())
    with tracking(settings, folder, "mine", CONFIG, is_first=is_first) as observers:
        for record in records:
            for observer in (log, *observers):
                observer(record)


def resume(number: int) -> Record:
    return START | {"kind": "resume", "step": number, "evaluated_step": number}


def test_what_a_tracker_is_told(tmp_path: Path) -> None:
    evaluation = {"kind": "evaluation", "step": 2, "held_out_loss": 0.5, "phase": "one"}
    train(tmp_path, START, step(1), {"kind": "checkpoint", "step": 1}, step(2), evaluation)
    (told,) = Recording.runs.values()
    assert told == [
        (1, {"step/loss": 1.0, "step/tokens": 1}),
        (2, {"step/loss": 0.5, "step/tokens": 2}),
        (2, {"evaluation/held_out_loss": 0.5}),
    ]
    config = {**CONFIG, "about": {"device": "a CPU"}}
    assert Recording.told == [("modernbert", "mine", config), "finished"]


def test_a_resumed_run_goes_on_there_and_repeats_nothing(tmp_path: Path) -> None:
    train(tmp_path, START, step(1), step(2), step(3))
    train(tmp_path, resume(2), step(3), step(4))
    (told,) = Recording.runs.values()
    assert [number for number, _ in told] == [1, 2, 3, 4]
    train(tmp_path, START, step(1))
    assert len(Recording.runs) == 2


def test_a_tracker_that_comes_later_hears_of_what_was_before(tmp_path: Path) -> None:
    train(tmp_path, START, step(1), step(2), step(3), kind=None)
    train(tmp_path, resume(2), step(3))
    assert [number for number, _ in Recording.runs["run0"]] == [1, 2, 3]


def test_one_process_logs(tmp_path: Path) -> None:
    train(tmp_path, START, step(1), is_first=False)
    assert not Recording.runs and not (tmp_path / "trackers").exists()


class Broken(Recording):
    def log(self, _values: Mapping[str, float], _step: int) -> None:
        raise ConnectionError("no network\nand more")


class Hanging(Recording):
    def log(self, _values: Mapping[str, float], _step: int) -> None:
        threading.Event().wait()


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        (Broken, "wandb: nothing more is logged there: no network; the training"),
        (Hanging, "did not take all records within 0.1 seconds"),
    ],
)
def test_what_fails_is_said_once(
    tracker: type, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "wandb", tracker)
    monkeypatch.setattr(trackers, "PATIENCE_SECONDS", 0.1 if tracker is Hanging else 5.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(tmp_path, START, *map(step, range(1, 50)))
    assert [each.category for each in caught] == [TrackerWarning]
    assert message in str(caught[0].message)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 50


def test_records_beyond_what_may_wait_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Hanging)
    monkeypatch.setattr(trackers, "_MOST_WAITING", 5)
    with pytest.warns(TrackerWarning, match="does not keep up"):
        train(tmp_path, START, *map(step, range(1, 20)))


def test_an_error_of_the_training_is_told(tmp_path: Path) -> None:
    settings = LogSettings(to=("wandb",))
    with (
        pytest.raises(ZeroDivisionError),
        tracking(settings, tmp_path, "mine", CONFIG, is_first=True) as (observer,),
    ):
        observer(START)
        raise ZeroDivisionError
    assert Recording.told[-1] == "failed"


def test_a_tracker_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "is_installed", lambda _: False)
    with pytest.raises(MissingPackageError, match=r"trackio is not installed.*modernbert\[trackio"):
        train(tmp_path, START, kind="trackio")


def test_tensorboard_is_one_of_them(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(tmp_path, START, step(1), {"kind": "end", "step": 1}, kind="tensorboard")
    assert list((tmp_path / "tensorboard").iterdir())


def ids_of(folder: Path, kind: str) -> str:
    found: str = json.loads((folder / "trackers" / f"{kind}.json").read_text())["id"]
    return found


def steps_of_mlflow(run_id: str, _folder: Path) -> list[int]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe.training.total_tokens"] == "100"
    return [each.step for each in client.get_metric_history(run_id, "step/loss")]


def steps_of_trackio(name: str, _folder: Path) -> list[int]:
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("modernbert", name)
    return sorted(row["step"] for row in rows if "step/loss" in row)


def steps_of_wandb(run_id: str, folder: Path) -> list[int]:
    from wandb.proto import wandb_internal_pb2 as messages

    steps = []
    for path in sorted((folder / "wandb").glob(f"offline-run-*/run-{run_id}.wandb")):
        for content in wandb_records(path.read_bytes()):
            record = messages.Record()
            record.ParseFromString(content)
            if record.WhichOneof("record_type") == "history":
                steps.append(record.history.step.num)
    return steps


def wandb_records(content: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format, in parts of which 1 and 4 are the last kinds."""
    place, record = 7, b""  # after the header of the file
    while place + 7 <= len(content):
        if (left := -place % 32768) and left < 7:  # no part begins so late in a block
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        place += 7 + length
        record += content[place - length : place]
        if kind in (1, 4):
            yield record
            record = b""


REAL: dict[str, tuple[str, Callable[[str, Path], list[int]]]] = {
    "mlflow": ("mlflow", steps_of_mlflow),
    "trackio": ("trackio", steps_of_trackio),
    "wandb": ("wandb", steps_of_wandb),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("kind", REAL)
def test_the_libraries_themselves(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is resumed is one run there, with every step once."""
    module, steps_of = REAL[kind]
    pytest.importorskip(module, reason=f"the extra [{kind}] is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(trackers, "PATIENCE_SECONDS", 300.0)
    if kind == "wandb":
        monkeypatch.setitem(trackers.TRACKERS, "wandb", trackers.WandB)
    train(tmp_path, START, step(1), step(2), step(3), kind=kind)
    first = ids_of(tmp_path, kind)
    train(tmp_path, resume(2), step(3), step(4), kind=kind)
    assert ids_of(tmp_path, kind) == first
    deadline = time.monotonic() + 60
    while steps_of(first, tmp_path) != [1, 2, 3, 4]:  # which some write in a process of their own
        assert time.monotonic() < deadline, steps_of(first, tmp_path)
        time.sleep(0.2)
