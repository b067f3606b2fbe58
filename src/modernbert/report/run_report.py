"""The report in a run's folder: `report.html`, `loss.png` and `run.png`.

It is written at evaluations and checkpoints during the run, and at its end.
"""

import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modernbert.errors import RunError
from modernbert.extras import is_installed
from modernbert.reading import read_regular
from modernbert.report.charts import charts_html, save_png
from modernbert.report.formats import compact, duration, num_bytes, percent
from modernbert.report.history import METRICS_FILE, LogRow, RunHistory
from modernbert.report.page import (
    Html,
    code,
    commands_of,
    details,
    element,
    facts,
    go_on,
    grid,
    join,
    page,
    section,
    table,
    write_page,
)
from modernbert.report.run_charts import matmul_ceiling, mean_curve, phase_accounts, run_charts

_SHOWN_EVENTS = 100
_ORDINARY = ("start", "resume", "evaluation", "checkpoint", "end", "phase")


def run_page(
    history: RunHistory,
    *,
    title: str,
    recipe: str = "",
    baseline: float | None = None,
    examples: Sequence[Mapping[str, Any]] = (),
    next_commands: Mapping[str, str] | None = None,
    card: str = "",
) -> str:
    """Make the page of a run as it is now.

    Args:
        history: The history of the run.
        title: The title of the page.
        recipe: The text of the recipe, shown unchanged.
        baseline: A loss to compare with, such as that of the unigram distribution.
        examples: Masked tokens of held-out text, and what the model predicts.
        next_commands: What can be done next, and the command of each.
        card: The model's card, shown unchanged.
    """
    charts = charts_html(run_charts(history, baseline))
    parts = [
        section("Now", facts(_totals(history))),
        go_on(next_commands or {}),
        section("Course", grid(charts)) if charts else element("p", "No step has been taken yet."),
        _examples(examples),
        section("Phases", _phases(history)) if history.num_steps else Html(""),
        _events(history),
        section("Model and machine", facts(_about(history))),
        section("Recipe", details("recipe.toml", code(recipe))) if recipe else Html(""),
        section("Model card", details("README.md", code(card))) if card else Html(""),
    ]
    return page(title, [part for part in parts if part], subtitle=_status(history))


def _examples(examples: Sequence[Mapping[str, Any]]) -> Html:
    """Show masked tokens in their texts beside the predictions, the right ones first."""
    if not examples:
        return Html("")
    judged = [(each, each["predicted"][0][0] == each["expected"]) for each in examples]
    rows = [
        (_masked_text(each), _predicted(each["predicted"], "right" if is_right else "wrong"))
        for each, is_right in sorted(judged, key=lambda pair: not pair[1])
    ]
    note = (
        "Masked tokens of held-out text, evenly spread. The marked token is what stands there; the "
        "model saw [MASK]."
    )
    header = ("text", "predicted")
    return section("Examples", table(header, rows, texts=("text",)), note=note)


def _masked_text(example: Mapping[str, Any]) -> Html:
    before, after, expected = (str(example[name]) for name in ("before", "after", "expected"))
    space = " " if expected[:1] == " " else ""
    return join([before, space, element("mark", expected.strip() or repr(expected)), after])


def _predicted(predictions: Sequence[Sequence[Any]], verdict: str) -> Html:
    told = (f"{str(token)!r} {percent(round(float(score), 3))}" for token, score in predictions)
    return join([f"{verdict}: ", join(told, " · ")])


def _status(history: RunHistory) -> str:
    """Say whether the run is in progress, or why it stopped, from its last record of that kind."""
    rows = history.of_kind("start", "resume", "end")
    if not rows:
        return "not started yet"
    about: Mapping[str, Any] = rows[0].get("about") or {}
    task = f"{str(about['task']).capitalize()}, " if about.get("task") else ""
    if rows[-1]["kind"] != "end":
        return f"{task}under way when this page was written"
    status = str(rows[-1].get("status", "ended"))
    said = {"interrupted": "interrupted; the same command continues it"}.get(status, status)
    return task + said


def _totals(history: RunHistory) -> dict[str, str]:
    total = max((row.get("total_tokens") or 0 for row in history.starts), default=0)
    tokens = history.last_tokens
    accounts = phase_accounts(history)
    seconds = sum(account.seconds for account in accounts)
    speed = mean_curve(history, "tokens_per_second")
    found: dict[str, str] = {"tokens seen": compact(tokens)}
    if total:
        found["tokens seen"] += f" of {compact(total)} ({percent(min(1.0, tokens / total))})"
    found["steps"] = f"{history.num_steps:,}"
    loss = mean_curve(history, "loss")
    if loss:
        found["training loss"] = f"{loss.values[-1]:.3f}"
    found |= dict(_evaluation_texts(accounts[-1].evaluation)) if accounts else {}
    if seconds > 0:
        found["time in steps"] = duration(seconds)
        found["tokens a second, all steps"] = compact(tokens / seconds)
    if speed and total > tokens:
        found["left at this speed"] = duration((total - tokens) / max(1e-9, speed.values[-1]))
    resumed = len(history.of_kind("resume"))
    found["resumed"] = {0: "never", 1: "once"}.get(resumed, f"{resumed:,} times")
    found["skipped steps"] = f"{len(history.of_kind('skipped')):,}"
    return found


def _evaluation_texts(evaluation: LogRow) -> Iterator[tuple[str, str]]:
    if isinstance(loss := evaluation.get("held_out_loss"), int | float):
        yield "held-out loss", f"{loss:.3f}"
    if isinstance(accuracy := evaluation.get("held_out_accuracy"), int | float):
        yield "held-out accuracy", percent(round(accuracy, 4))
    if isinstance(general := evaluation.get("general_loss"), int | float):
        yield "loss on general text", f"{general:.3f}"
    if isinstance(general := evaluation.get("general_accuracy"), int | float):
        yield "accuracy on general text", percent(round(general, 4))


def _phases(history: RunHistory) -> Html:
    header = ("phase", "tokens", "steps", "held-out loss", "accuracy", "tokens/s", "time in steps")
    rows = []
    for account in phase_accounts(history):
        texts = dict(_evaluation_texts(account.evaluation))
        rows.append(
            (
                account.name or "the only one",
                compact(account.tokens),
                f"{account.num_steps:,}",
                texts.get("held-out loss", ""),
                texts.get("held-out accuracy", ""),
                compact(account.tokens_per_second) if account.seconds else "",
                duration(account.seconds) if account.seconds else "",
            )
        )
    return table(header, rows)


def _events(history: RunHistory) -> Html:
    """List unusual events, the latest first."""
    rows = [row for row in history.events if row["kind"] not in _ORDINARY]
    if not rows:
        return Html("")
    shown = [_event(row) for row in rows[: -_SHOWN_EVENTS - 1 : -1]]
    more = f"The last {_SHOWN_EVENTS} of {len(rows):,}." if len(rows) > _SHOWN_EVENTS else ""
    return section("Out of the ordinary", table(("step", "what", "details"), shown), note=more)


def _event(row: LogRow) -> Sequence[str]:
    rest = {name: value for name, value in row.items() if name not in ("kind", "step", "tokens")}
    text = rest.pop("message", rest.pop("reason", None))
    said = [str(text)] if text is not None else []
    said += [f"{name.replace('_', ' ')} {_text(value)}" for name, value in rest.items()]
    step = row.get("step")
    return (f"{step:,}" if isinstance(step, int) else "", str(row["kind"]), ", ".join(said))


def _text(value: Any) -> str:
    """Describe a value of a record, or a list of mappings such as the parts of an average."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return " ".join(f"{name.replace('_', ' ')} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return "; ".join(_text(inner) for inner in value)
    return value if isinstance(value, str) else json.dumps(value)


def _about(history: RunHistory) -> dict[str, object]:
    """Describe the model, the machine and the versions, from the last start."""
    about: Mapping[str, Any] = {}
    for row in history.starts:
        about = row.get("about") or about
    found: dict[str, object] = {
        str(name).replace("_", " "): f"{value:,}" if isinstance(value, int) else _text(value)
        for name, value in about.items()
        if not isinstance(value, Mapping)
    }
    if ceiling := matmul_ceiling(history):
        found["matrix products, measured"] = f"{ceiling / 1e9:,.0f} GFLOP/s"
    memory = history.curve("memory_bytes")
    if memory:
        found["peak memory"] = num_bytes(float(memory.values.max()))
    for name, value in about.items():
        if isinstance(value, Mapping):
            pairs = (f"{key} {_text(inner)}" for key, inner in value.items())
            found[str(name).replace("_", " ")] = details("show", element("p", ", ".join(pairs)))
    return found


REPORT_FILE = "report.html"
LOSS_FILE = "loss.png"
RUN_FILE = "run.png"
RECIPE_FILE = "recipe.toml"
EXAMPLES_FILE = "examples.json"

# A report is not written again before so many times its own duration have passed.
_PAUSE = 100.0


def write_report(
    run_folder: Path, history: RunHistory | None = None, baseline: float | None = None
) -> Path:
    """Write the page, and pictures if there is anything to draw; without matplotlib no charts.

    Args:
        run_folder: The folder of the run.
        history: The content of its log, if it was read already.
        baseline: A loss to compare with, such as that of the unigram distribution.

    Returns:
        The path of the page.

    Raises:
        RunError: There is no log of a run, or a file cannot be written.
    """
    history = history or RunHistory.read(run_folder / METRICS_FILE)
    page = run_folder / REPORT_FILE
    document = run_page(
        history,
        title=run_folder.resolve().name,
        recipe=_text_of(run_folder / RECIPE_FILE),
        baseline=baseline,
        examples=_examples_of(run_folder),
        next_commands=_next_commands(run_folder, history),
        card=_text_of(run_folder / "model" / "README.md"),
    )
    write_page(page, document)
    if history.curve("loss") and is_installed("matplotlib"):
        _draw(run_folder, history, baseline)
    return page


class ReportWriter:
    """Keeps a run's report up to date, as an observer of a `Trainer`.

    It takes no more than about a hundredth of the run's time, and always writes the report at the
    end. A report that cannot be written does not stop the run.
    """

    def __init__(self, run_folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.run_folder = run_folder
        self._clock = clock
        self._next = 0.0
        self._history = RunHistory()

    def __call__(self, record: dict[str, Any]) -> None:
        """Take one record after it was logged."""
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


def _next_commands(run_folder: Path, history: RunHistory) -> dict[str, str]:
    """Return what can be done with the model, or how to continue without one."""
    model = run_folder / "model"
    if model.is_dir():
        return commands_of("masked_lm", model)
    ends = history.of_kind("start", "resume", "end")
    if ends and ends[-1]["kind"] == "end" and (run_folder / RECIPE_FILE).exists():
        recipe = shlex.quote(str(run_folder / RECIPE_FILE))
        return {"continue": f"modernbert pretrain {recipe}"}
    return {}


def _examples_of(run_folder: Path) -> list[Mapping[str, Any]]:
    try:
        found = list(json.loads(_text_of(run_folder / EXAMPLES_FILE) or "[]"))
        _examples(found)
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        return []  # not as this package writes it
    return found


def _text_of(path: Path) -> str:
    """Return the text of a file; nothing where there is none."""
    try:
        return read_regular(path).decode(errors="replace")
    except OSError:
        return ""
