"""Reading a run's log back, whatever happened to the run."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.errors import RunError
from modernbert.report import history as module
from modernbert.report.history import Curve, RunHistory, count_tokens, unigram_baseline

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


def write_log(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def step(number: int, loss: float = 1.0, **more: Any) -> dict[str, object]:
    return {"kind": "step", "step": number, "tokens": number * 10, "loss": loss, **more}


def evaluation(number: int, loss: float) -> dict[str, object]:
    return {"kind": "evaluation", "step": number, "tokens": number * 10, "held_out_loss": loss}


def history_of(*rows: dict[str, object]) -> RunHistory:
    history = RunHistory()
    for row in rows:
        history.add(row)
    return history


def points(curve: Curve) -> list[tuple[float, float]]:
    return list(zip(curve.tokens.tolist(), curve.values.tolist(), strict=True))


def test_a_curve_of_each_kind(tmp_path: Path) -> None:
    rows = [step(1, 9.0), evaluation(1, 8.5), {"kind": "checkpoint", "step": 1}, step(2, 7.0)]
    history = RunHistory.read(write_log(tmp_path / "metrics.jsonl", *rows))
    assert points(history.curve("loss")) == [(10, 9.0), (20, 7.0)]
    assert points(history.event_curve("evaluation", "held_out_loss")) == [(10, 8.5)]
    assert not history.event_curve("evaluation", "held_out_accuracy")
    assert not history.curve("mask_rate")
    assert history.last_step == rows[-1] and history.last_tokens == 20


def test_a_figure_that_only_some_steps_have() -> None:
    history = history_of(step(1), step(2, memory=5), step(3))
    assert points(history.curve("memory")) == [(20, 5)]
    assert [math.isnan(value) for value in history.column("memory")] == [True, False, True]


@pytest.mark.parametrize("value", [None, "nan", [1], {}])
def test_a_value_that_is_no_number_is_a_gap(value: object) -> None:
    history = history_of(step(1), {**step(2), "loss": value})
    assert points(history.curve("loss")) == [(10, 1.0)]


@pytest.mark.parametrize("torn", [b'{"kind": "st', b"\x00\x00\x00", b"[1]\n", b'{"step": 3}\n'])
def test_torn_and_foreign_lines_are_left_out(tmp_path: Path, torn: bytes) -> None:
    log = write_log(tmp_path / "metrics.jsonl", step(1), step(2))
    log.write_bytes(log.read_bytes() + torn)
    assert RunHistory.read(log).column("step").tolist() == [1, 2]


def test_a_torn_line_hides_only_itself(tmp_path: Path) -> None:
    log = write_log(tmp_path / "metrics.jsonl", step(1))
    log.write_bytes(log.read_bytes() + b'{"kind": "st\n' + json.dumps(step(2)).encode())
    assert RunHistory.read(log).column("step").tolist() == [1, 2]


@pytest.mark.parametrize("resume", [[], [{"kind": "resume", "step": 2}]])
def test_steps_done_once_more_count_once(resume: list[dict[str, object]]) -> None:
    first = (step(1, 1.0), step(2, 2.0), step(3, 3.0), evaluation(3, 5.0))
    skipped = {"kind": "skipped", "step": 3}
    history = history_of(*first, skipped, *resume, step(3, 30.0), step(4, 40.0))
    assert history.curve("loss").values.tolist() == [1.0, 2.0, 30.0, 40.0]
    assert history.of_kind("evaluation") == [] and history.of_kind("skipped") == [skipped]


def test_a_resume_keeps_the_evaluation_of_its_own_step() -> None:
    history = history_of(step(1), step(2), evaluation(2, 5.0), {"kind": "resume", "step": 2})
    assert len(history.of_kind("evaluation")) == 1 and history.num_steps == 2


def test_phases_in_the_order_of_their_steps() -> None:
    history = history_of(step(1, phase="a"), step(2, phase="a"), step(3, phase="b"))
    assert history.phases == ["a", "b"] and history.phase_of_steps.tolist() == [0, 0, 1]
    history.add({"kind": "resume", "step": 1})
    assert history.phases == ["a"] and history.phase_of_steps.tolist() == [0]


def test_a_missing_log_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such file; give the folder of a run"):
        RunHistory.read(tmp_path / "metrics.jsonl")


@settings(deadline=None)
@given(VALUES, st.integers(0, 50))
def test_smoothing_stays_between_the_extremes(values: list[float], half_width: int) -> None:
    curve = Curve(np.arange(len(values)), np.array(values))
    smoothed = curve.smoothed(half_width)
    assert smoothed.tokens is curve.tokens
    # Differences of running sums lose a little of the last digits.
    assert (smoothed.values >= min(values) - 1e-6).all()
    assert (smoothed.values <= max(values) + 1e-6).all()
    assert smoothed.values[0] == pytest.approx(values[0])


def test_smoothing_a_straight_line_changes_nothing_before_its_end() -> None:
    line = Curve(np.arange(20), np.arange(20.0))
    assert line.smoothed(3).values[:17] == pytest.approx(line.values[:17])


VOCAB_SIZE = 7
IDS = st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=30)


@settings(deadline=None)
@given(IDS, IDS)
def test_equal_to_a_plain_calculation(training: list[int], targets: list[int]) -> None:
    counts = count_tokens([np.array(training, dtype=np.uint16)], VOCAB_SIZE)
    baseline = unigram_baseline(counts, np.array(targets))
    counted = Counter(training)
    total = len(training) + VOCAB_SIZE
    losses = [-math.log((counted[target] + 1) / total) for target in targets]
    assert baseline.loss == pytest.approx(sum(losses) / len(losses))
    guess = min(range(VOCAB_SIZE), key=lambda token: (-counted[token], token))
    assert baseline.accuracy == pytest.approx(targets.count(guess) / len(targets))


@settings(deadline=None)
@given(IDS)
def test_counting_in_chunks_changes_nothing(ids: list[int]) -> None:
    array = np.array(ids, dtype=np.uint32)
    whole = count_tokens([array], VOCAB_SIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK_TOKENS", 4)
        assert np.array_equal(count_tokens([array], VOCAB_SIZE), whole)
    assert whole.sum() == len(ids)
