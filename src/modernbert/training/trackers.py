"""Trackers: trackio, Weights & Biases, MLflow and TensorBoard hear of a run's records.

A tracker works in a thread of its own and never stops or slows a training: what goes wrong is said
once. Its id of the run is kept in the folder `trackers` of the run's folder, so that a resumed run
goes on there; what it has been told before is not told again.
"""

import json
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Any, Protocol

from modernbert.errors import InputError, MissingPackageError, TrackerWarning
from modernbert.extras import import_extra, is_installed, missing
from modernbert.files import write_whole
from modernbert.training.log import Observer, Record, TensorBoardLog, numbers_of, read_metrics
from modernbert.training.trainer import METRICS_FILE
from modernbert.training.training_settings import LogSettings, TrackerName

FOLDER = "trackers"
PATIENCE_SECONDS = 30.0
_MOST_WAITING = 100_000
_TOLD = ("step", "evaluation", "test")
_MLFLOW_LENGTH = 500
_MLFLOW_BATCH = 100


class Tracker(Protocol):
    """A run in a tracker.

    Attributes:
        id: What continues the run later.
    """

    id: str

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take the numbers of a step."""

    def finish(self, *, failed: bool) -> None:
        """End the run, at least for now."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What a tracker is told of a run before its records.

    Attributes:
        project: The project, or experiment, that it belongs to.
        name: Its name there.
        folder: Its folder.
        config: Its settings, as JSON values.
    """

    project: str
    name: str
    folder: Path
    config: Mapping[str, Any]


class WandB:
    """A run of Weights & Biases, whose own variables, such as `WANDB_MODE`, say where it goes."""

    def __init__(self, run: TrackedRun, known_id: str | None) -> None:
        wandb = import_extra("wandb")
        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):
            raise InputError("you are not logged in; run `wandb login`, or set WANDB_MODE=offline")
        self.id = known_id or uuid.uuid4().hex[:8]
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=self.id,
            resume="allow",
            config=dict(run.config),
            dir=run.folder,
            settings=wandb.Settings(console="off"),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class Trackio:
    """A run of trackio, which knows runs by their names."""

    def __init__(self, run: TrackedRun, known_id: str | None) -> None:
        self.id = known_id or f"{run.name}-{uuid.uuid4().hex[:6]}"
        self._run = import_extra("trackio").init(
            project=run.project,
            name=self.id,
            resume="allow",
            config=dict(run.config),
            embed=False,
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, *, failed: bool) -> None:  # noqa: ARG002
        self._run.finish()


class MLflow:
    """A run of MLflow, where `MLFLOW_TRACKING_URI` says."""

    def __init__(self, run: TrackedRun, known_id: str | None) -> None:
        import_extra("mlflow")
        self._entities = import_extra("mlflow.entities")
        self._client = import_extra("mlflow.tracking").MlflowClient()
        if known_id is not None:
            self.id = known_id
            self._client.update_run(known_id, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(run.project)
        place = (
            experiment.experiment_id if experiment else self._client.create_experiment(run.project)
        )
        self.id = self._client.create_run(place, run_name=run.name).info.run_id
        params = [
            self._entities.Param(key, text[:_MLFLOW_LENGTH]) for key, text in _flat(run.config)
        ]
        for first in range(0, len(params), _MLFLOW_BATCH):
            self._client.log_batch(self.id, params=params[first : first + _MLFLOW_BATCH])

    def log(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(key, value, now, step) for key, value in values.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def finish(self, *, failed: bool) -> None:
        self._client.set_terminated(self.id, "FAILED" if failed else "FINISHED")


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        key = f"{above}{name}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{key}.")
        else:
            yield key, str(value)


TRACKERS: dict[TrackerName, Callable[[TrackedRun, str | None], Tracker]] = {
    "trackio": Trackio,
    "wandb": WandB,
    "mlflow": MLflow,
}


class TrackerLog:
    """Passes records to a tracker, in a thread of its own.

    A tracker that is new to a run that is resumed hears of its earlier steps from its log.

    Args:
        kind: Which tracker, of `TRACKERS`.
        run: What it is told of the run.
    """

    def __init__(self, kind: TrackerName, run: TrackedRun) -> None:
        self.kind, self.run = kind, run
        self._log = run.folder / METRICS_FILE
        self._told = {row["kind"]: row["step"] for row in read_metrics(self._log)}
        self._waiting: Queue[Record | None] = Queue(_MOST_WAITING)
        self._thread: Thread | None = None
        self._error: str | None = None
        self._is_off = False
        self.failed = False

    def __call__(self, record: Record) -> None:
        """Take a record; this never waits."""
        self._say()
        if self._is_off:
            return
        if record["kind"] in ("start", "resume"):
            self._begin(record)
        else:
            self._pass_on(record)

    def _pass_on(self, record: Record) -> None:
        kind = record["kind"]
        if kind not in _TOLD or record["step"] <= self._told.get(kind, -1):
            return
        try:
            self._waiting.put_nowait(record)
        except Full:
            self._error = f"does not keep up: {_MOST_WAITING:,} records wait"

    def _begin(self, record: Record) -> None:
        known_id = self._known_id() if record["kind"] == "resume" else None
        if known_id is None:
            self._told = {}
            for row in read_metrics(self._log):
                self._pass_on(row)
        run = replace(self.run, config={**self.run.config, "about": record.get("about", {})})
        self._thread = Thread(target=self._work, args=(run, known_id), name=self.kind, daemon=True)
        self._thread.start()

    def _work(self, run: TrackedRun, known_id: str | None) -> None:
        try:
            tracker = TRACKERS[self.kind](run, known_id)
            self._keep_id(tracker.id)
            for record in iter(self._waiting.get, None):
                values = {f"{record['kind']}/{key}": value for key, value in numbers_of(record)}
                tracker.log(values, record["step"])
            tracker.finish(failed=self.failed)
        except Exception as error:  # whatever a tracker raises, the training goes on
            self._error = (str(error) or type(error).__name__).strip().splitlines()[0]

    def close(self) -> None:
        """Wait a while until the tracker has all records."""
        if self._thread is not None and self._error is None:
            with suppress(Full):
                self._waiting.put(None, timeout=PATIENCE_SECONDS)
            self._thread.join(PATIENCE_SECONDS)
            if self._thread.is_alive():
                self._error = f"did not take all records within {PATIENCE_SECONDS:g} seconds"
        self._say()

    def _say(self) -> None:
        """Tell of an error, once."""
        if self._error is not None and not self._is_off:
            self._is_off = True
            warnings.warn(
                f"{self.kind}: nothing more is logged there: {self._error}; the training is not "
                "affected",
                TrackerWarning,
                stacklevel=2,
            )

    @property
    def _id_file(self) -> Path:
        return self.run.folder / FOLDER / f"{self.kind}.json"

    def _known_id(self) -> str | None:
        try:
            kept = json.loads(self._id_file.read_text(encoding="utf-8"))
            found: str | None = kept["id"] if kept["project"] == self.run.project else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found

    def _keep_id(self, run_id: str) -> None:
        self._id_file.parent.mkdir(exist_ok=True)
        content = json.dumps({"project": self.run.project, "id": run_id}) + "\n"
        write_whole(self._id_file, content.encode())


@contextmanager
def tracking(
    settings: LogSettings, folder: Path, name: str, config: Mapping[str, Any], *, is_first: bool
) -> Iterator[Sequence[Observer]]:
    """Open what a run is to be logged to; at the end it is told how the run ended.

    Args:
        settings: What to log to.
        folder: The folder of the run.
        name: The name of the run.
        config: Its settings, as JSON values.
        is_first: Whether this is process 0, the only one that logs.

    Raises:
        MissingPackageError: The package of a tracker is not installed.
    """
    for kind in settings.to:
        if not is_installed(kind):
            raise MissingPackageError(missing(kind), name=kind)
    run = TrackedRun(project=settings.project, name=name, folder=folder, config=config)
    chosen = settings.to if is_first else ()
    logs = [TrackerLog(kind, run) for kind in chosen if kind != "tensorboard"]
    boards = [TensorBoardLog(folder / kind) for kind in chosen if kind == "tensorboard"]
    try:
        yield [*boards, *logs]
    except Exception:  # a stop is no failure
        for log in logs:
            log.failed = True
        raise
    finally:
        for log in logs:
            log.close()
