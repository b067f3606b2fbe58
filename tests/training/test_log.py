"""Metrics: each step once however often a run was killed, and nothing half-written stays."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from modernbert.errors import RunError
from modernbert.json_files import log_row
from modernbert.training import log
from modernbert.training.log import MetricsLog, TensorBoardLog, read_metrics, tensorboard_log

START = {"kind": "start", "step": 0, "evaluated_step": -1}


def steps(first: int, last: int) -> list[dict[str, object]]:
    return [{"kind": "step", "step": step, "loss": 1 / step} for step in range(first, last + 1)]


@pytest.fixture
def metrics(tmp_path: Path) -> MetricsLog:
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    for record in [START, *steps(1, 4), {"kind": "evaluation", "step": 4, "held_out_loss": 2.5}]:
        metrics(record)
    return metrics


def brief(metrics: MetricsLog) -> list[tuple[str, int]]:
    return [(row["kind"], row["step"]) for row in read_metrics(metrics.path)]


def test_rows_are_there_at_once(metrics: MetricsLog) -> None:
    lines = metrics.path.read_text().splitlines()
    assert len(lines) == 6 and json.loads(lines[2]) == {"kind": "step", "step": 2, "loss": 0.5}


def test_a_resume_drops_the_rows_after_it(metrics: MetricsLog) -> None:
    metrics({"kind": "resume", "step": 2, "evaluated_step": 0})
    metrics({"kind": "step", "step": 3})
    assert [step for kind, step in brief(metrics) if kind == "step"] == [1, 2, 3]
    assert ("evaluation", 4) not in brief(metrics)


@pytest.mark.parametrize(("evaluated_step", "kept"), [(4, True), (0, False)])
def test_an_evaluation_that_will_be_repeated_goes(
    metrics: MetricsLog, evaluated_step: int, kept: bool
) -> None:
    metrics({"kind": "resume", "step": 4, "evaluated_step": evaluated_step})
    assert (("evaluation", 4) in brief(metrics)) is kept
    assert ("step", 4) in brief(metrics)


@pytest.mark.parametrize(
    "torn", [b'{"kind": "st', b'{"kind": "step", "step": 5', b"\xff\xfe", b"7"]
)
def test_a_torn_last_line_is_tolerated(metrics: MetricsLog, torn: bytes) -> None:
    with metrics.path.open("ab") as file:
        file.write(torn)
    metrics({"kind": "resume", "step": 4, "evaluated_step": 4})
    metrics({"kind": "step", "step": 5})
    assert brief(metrics)[-3:] == [("evaluation", 4), ("resume", 4), ("step", 5)]
    assert all(json.loads(line) for line in metrics.path.read_text().splitlines())


def test_a_start_begins_anew(metrics: MetricsLog) -> None:
    metrics(START)
    assert brief(metrics) == [("start", 0)]


def test_resuming_without_a_file(tmp_path: Path) -> None:
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    metrics({"kind": "resume", "step": 4, "evaluated_step": 4})
    assert brief(metrics) == [("resume", 4)]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="could not be written"):
        MetricsLog(tmp_path / "absent" / "metrics.jsonl")(START)


def test_tensorboard_has_the_numbers_and_forgets_what_a_resume_repeats(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for records in (
        [START, *steps(1, 4), {"kind": "evaluation", "step": 4, "held_out_loss": 2.5}],
        [
            {"kind": "resume", "step": 2, "evaluated_step": 0},
            {"kind": "step", "step": 3, "loss": 9.0},
        ],
    ):
        # Files are read in the order of the second in their names, as a resume's come later.
        time.sleep(1.0 - time.time() % 1.0)
        observer = TensorBoardLog(tmp_path)
        for record in [*records, {"kind": "end", "step": 4, "status": "finished"}]:
            observer(record)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("step/loss")] == [(1, 1), (2, 0.5), (3, 9)]


def test_tensorboard_files_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = TensorBoardLog(tmp_path / "file" / "events")
    with pytest.raises(RunError, match="events: could not be written"):
        log({"kind": "start", "step": 0})


def test_without_tensorboard_there_is_no_such_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(log, "find_spec", lambda _: None)
    assert tensorboard_log(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"kind": "step", "step": 3, "loss": 0.5}', {"kind": "step", "step": 3, "loss": 0.5}),
        ('{"kind": "step", "step": "3", "seconds": [1]}', {"kind": "step"}),
        ('{"kind": "step", "step": true, "tokens": -1}', {"kind": "step"}),
        ('{"kind": "start", "about": "x", "phase": 5}', {"kind": "start"}),
        ('{"kind": "note", "parts": ' + "[" * 50 + "]" * 50 + "}", {"kind": "note"}),
        ('{"kind": "step", "step": 1' + "0" * 400 + "}", {"kind": "step"}),
        ('{"kind": ["step"]}', None),
        ("[" * 100_000, None),
        ('{"kind": "st', None),
    ],
)
def test_values_of_other_types_are_left_out(line: str, expected: dict[str, Any] | None) -> None:
    assert log_row(line) == expected
