"""Reading a run's log back, whatever happened to the run."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.errors import RunError
from modernbert.report.metrics import Curve, read_curve, read_rows

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


def write_log(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def step(number: int, loss: float = 1.0) -> dict[str, object]:
    return {"kind": "step", "step": number, "tokens": number * 10, "loss": loss}


def test_a_curve_of_each_kind(tmp_path: Path) -> None:
    log = write_log(
        tmp_path / "metrics.jsonl",
        step(1, 9.0),
        {"kind": "evaluation", "step": 1, "tokens": 10, "held_out_loss": 8.5},
        {"kind": "checkpoint", "step": 1},
        step(2, 7.0),
    )
    rows = read_rows(log)
    assert read_curve(rows, "step", "loss") == Curve((10, 20), (9.0, 7.0))
    assert read_curve(rows, "evaluation", "held_out_loss") == Curve((10,), (8.5,))
    assert not read_curve(rows, "evaluation", "held_out_accuracy")


@pytest.mark.parametrize("torn", [b'{"kind": "st', b"\x00\x00\x00", b"[1]\n", b'{"step": 3}\n'])
def test_torn_and_foreign_lines_are_left_out(tmp_path: Path, torn: bytes) -> None:
    log = write_log(tmp_path / "metrics.jsonl", step(1), step(2))
    log.write_bytes(log.read_bytes() + torn)
    assert [row["step"] for row in read_rows(log)] == [1, 2]


def test_a_torn_line_hides_only_itself(tmp_path: Path) -> None:
    log = write_log(tmp_path / "metrics.jsonl", step(1))
    log.write_bytes(log.read_bytes() + b'{"kind": "st\n' + json.dumps(step(2)).encode())
    assert [row["step"] for row in read_rows(log)] == [1, 2]


@pytest.mark.parametrize("resume", [[], [{"kind": "resume", "step": 2}]])
def test_steps_done_once_more_count_once(tmp_path: Path, resume: list[dict[str, object]]) -> None:
    evaluation = {"kind": "evaluation", "step": 3, "tokens": 30, "held_out_loss": 5.0}
    log = write_log(
        tmp_path / "metrics.jsonl",
        *(step(1, 1.0), step(2, 2.0), step(3, 3.0), evaluation),
        *resume,
        *(step(3, 30.0), step(4, 40.0)),
    )
    rows = read_rows(log)
    assert read_curve(rows, "step", "loss") == Curve((10, 20, 30, 40), (1.0, 2.0, 30.0, 40.0))
    assert not read_curve(rows, "evaluation", "held_out_loss")


def test_a_missing_log_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no readable log"):
        read_rows(tmp_path / "metrics.jsonl")


@settings(deadline=None)
@given(VALUES, st.integers(0, 50))
def test_smoothing_stays_between_the_extremes(values: list[float], half_width: int) -> None:
    curve = Curve(tuple(range(len(values))), tuple(values))
    smoothed = curve.smoothed(half_width)
    assert smoothed.tokens == curve.tokens
    # Differences of running sums lose a little of the last digits.
    assert all(min(values) - 1e-6 <= value <= max(values) + 1e-6 for value in smoothed.values)
    assert smoothed.values[0] == pytest.approx(values[0])


def test_smoothing_a_straight_line_changes_nothing_before_its_end() -> None:
    line = Curve(tuple(range(20)), tuple(float(i) for i in range(20)))
    assert line.smoothed(3).values[:17] == pytest.approx(line.values[:17])
