"""The report in the run's folder: written by the way, whole, and never in the way."""

import json
from pathlib import Path

import pytest
from tests.report.example_run import rows, write_run
from tests.report.html_tree import parse

from modernbert.errors import RunError
from modernbert.report import run_report
from modernbert.report.history import RunHistory
from modernbert.report.run_report import ReportWriter, write_report


def test_page_and_pictures(tmp_path: Path) -> None:
    write_run(tmp_path / "books")
    page = write_report(tmp_path / "books")
    assert page == tmp_path / "books" / "report.html"
    assert parse(page.read_text(encoding="utf-8")).all("h1")[0].text == "books"
    for name in ("loss.png", "run.png"):
        assert (tmp_path / "books" / name).read_bytes().startswith(b"\x89PNG")
    assert page.stat().st_size < 200_000


def test_a_run_without_a_step_has_a_page_alone(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "start", "step": 0}\n')
    write_report(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "report.html"]


def test_a_folder_without_a_log(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="give the folder of a run"):
        write_report(tmp_path)


class Watched:
    """How often a report is written, by a clock that goes on with each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.now, self.seconds = 0.0, seconds
        self.steps: list[int] = []
        monkeypatch.setattr(run_report, "write_report", self.write)

    def write(self, _folder: Path, history: RunHistory) -> None:
        self.steps.append(history.num_steps)
        self.now += self.seconds

    def clock(self) -> float:
        return self.now


def test_written_by_the_way_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, seconds=0.05)
    writer = ReportWriter(tmp_path, clock=watched.clock)
    log = tmp_path / "metrics.jsonl"
    log.write_text("")
    for row in rows():
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        watched.now += row.get("seconds", 0)
        writer(row)
    assert watched.steps == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120]
    writer({"kind": "end", "step": 120})
    assert watched.steps[-1] == 120 and len(watched.steps) == 13


def test_a_slow_report_is_written_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch, seconds=1.0)
    writer = ReportWriter(tmp_path, clock=watched.clock)
    (tmp_path / "metrics.jsonl").write_text("")
    for row in rows():
        watched.now += row.get("seconds", 0)
        writer(row)
    assert watched.steps == [10, 60, 110]


def test_a_resumed_run_has_its_earlier_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path)
    watched = Watched(monkeypatch, seconds=0.0)
    writer = ReportWriter(tmp_path, clock=watched.clock)
    writer({"kind": "resume", "step": 120})
    writer({"kind": "end", "step": 120})
    assert watched.steps == [120]


def test_a_report_that_cannot_be_written_does_not_stop_the_run(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "report.html").mkdir()
    writer = ReportWriter(tmp_path)
    writer({"kind": "resume", "step": 120})
    writer({"kind": "end", "step": 120})
    assert not (tmp_path / "loss.png").exists()
