"""The report of a run in its folder: `report.html`, `loss.png` and `run.png`.

It is written while the run goes on, at evaluations and checkpoints, and at its end.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modernbert.errors import RunError
from modernbert.report.charts import save_png
from modernbert.report.history import METRICS_FILE, RunHistory
from modernbert.report.page import write_page
from modernbert.report.run_charts import run_charts
from modernbert.report.run_page import run_page

REPORT_FILE = "report.html"
LOSS_FILE = "loss.png"
RUN_FILE = "run.png"
RECIPE_FILE = "recipe.toml"

# A report is not written again before so many times its own duration have passed.
_PAUSE = 100.0


def write_report(
    run_folder: Path, history: RunHistory | None = None, baseline: float | None = None
) -> Path:
    """Write the page, and the pictures if there is anything to draw; gives the page's path.

    history: what the log of the folder says, if it was read before.
    baseline: a loss to compare with, such as the unigram distribution's.

    Raises:
        RunError: no log of a run, or a file that cannot be written.
    """
    history = history or RunHistory.read(run_folder / METRICS_FILE)
    page = run_folder / REPORT_FILE
    title = run_folder.resolve().name
    write_page(page, run_page(history, title=title, recipe=_recipe(run_folder), baseline=baseline))
    if history.curve("loss"):
        _draw(run_folder, history, baseline)
    return page


class ReportWriter:
    """Keeps a run's report up to date; an observer of a `Trainer`.

    It takes no more than about a hundredth of the run's time, but at the end of the run it is
    always written. A report that cannot be written does not stop a run.
    """

    def __init__(self, run_folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.run_folder = run_folder
        self._clock = clock
        self._next = 0.0
        self._history = RunHistory()

    def __call__(self, record: dict[str, Any]) -> None:
        """One record, after the log has it."""
        kind = record["kind"]
        if kind in ("start", "resume"):
            self._history = RunHistory.read(self.run_folder / METRICS_FILE)
        else:
            self._history.add(record)
        due = kind in ("evaluation", "checkpoint") and self._clock() >= self._next
        if kind == "end" or due:
            self._write()

    def _write(self) -> None:
        started = self._clock()
        try:
            write_report(self.run_folder, self._history)
        except RunError:
            return  # the log is what matters; a disk without room is told of by the next checkpoint
        finally:
            ended = self._clock()
            self._next = ended + _PAUSE * (ended - started)


def _draw(run_folder: Path, history: RunHistory, baseline: float | None) -> None:
    losses, *others = run_charts(history, baseline)
    save_png([losses], run_folder / LOSS_FILE, columns=1)
    save_png(others, run_folder / RUN_FILE, columns=3)


def _recipe(run_folder: Path) -> str:
    try:
        return (run_folder / RECIPE_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
