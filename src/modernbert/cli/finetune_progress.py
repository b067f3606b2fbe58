"""What a person sees of a fine-tuning: what was read, how far it is, what came of it."""

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from modernbert.cli.formatting import duration
from modernbert.cli.options import echo_json
from modernbert.cli.terminal import Meter, is_first_process, tell

if TYPE_CHECKING:
    from modernbert.tasks.tuning.job import TuningJob
    from modernbert.tasks.tuning.results import Combination, Results

_MAX_LABELS = 12
_NO_DEV = "note: no dev rows, so the last weights are kept, unmeasured on the way; see --dev"


def report(recipe: Any, train: "Callable[[Watch], Results]", *, as_json: bool) -> None:
    """Train with the progress on stderr, and the result on stdout.

    train: all runs of the recipe; a watch hears of each record.

    Raises:
        typer.Exit: a signal has stopped the runs, which are saved.
    """
    from modernbert.tasks.tuning.results import Interrupted
    from modernbert.tasks.tuning.sweep import MODEL_FOLDER

    try:
        with Meter("reading") as meter:
            results = train(Watch(meter, num_runs=len(recipe.runs())))
    except Interrupted as stopped:
        tell(f"stopped, all of it saved; go on with\n  modernbert {shlex.join(sys.argv[1:])}")
        raise typer.Exit(stopped.exit_code) from None
    if not is_first_process():
        return
    model = recipe.output / MODEL_FOLDER
    if as_json:
        echo_json({"model": str(model), **results.to_mapping()})
        return
    for line in result_lines(results):
        tell(line)
    typer.echo(model)


def tell_of_job(job: "TuningJob") -> None:
    """Say what was read."""
    for name, split in job.splits.items():
        tell(f"{name:<5}  {split}")
    for name, value in job.facts.items():
        tell(f"{name}: {_fact(value)}")
    for note in job.notes:
        tell(f"note: {note}")
    if "dev" not in job.splits:
        tell(_NO_DEV)


class Watch:
    """Shows the records of all runs: steps as a bar, evaluations as lines."""

    def __init__(self, meter: Meter, num_runs: int) -> None:
        self._meter, self._num_runs = meter, num_runs
        self._numbers: dict[str, int] = {}
        self._done: dict[str, float] = {}
        self._totals: dict[str, int] = {}

    def __call__(self, run: str, record: Mapping[str, Any]) -> None:
        """One record of a run."""
        kind = record["kind"]
        if kind in ("start", "resume"):
            self._begin(run, record)
        elif kind == "step":
            self._done[run] = record["tokens"] / self._totals[run]
            self._meter.update(sum(self._done.values()), self._num_runs, _step_details(record))
        elif kind == "checkpoint":
            self._meter.pause(record["paused_seconds"])
        elif kind == "evaluation":
            self._meter.pause(record["seconds"])
            tell(f"{self._prefix(run)}step {record['step']:>5,}  {scores_of(record)}")
        elif kind in ("warning", "skipped"):
            tell(f"{self._prefix(run)}{kind}: {record.get('message', record.get('reason'))}")

    def _begin(self, run: str, record: Mapping[str, Any]) -> None:
        self._numbers.setdefault(run, len(self._numbers) + 1)
        self._totals[run] = record["total_tokens"]
        if len(self._numbers) == 1:
            self._meter.restart("fine-tuning")
        if record["kind"] == "resume":
            tell(f"{self._prefix(run)}going on from step {record['step']:,}")
        elif self._num_runs > 1:
            tell(f"{self._prefix(run)}begins")

    def _prefix(self, run: str) -> str:
        return "" if self._num_runs == 1 else f"{run}  "


def scores_of(figures: Mapping[str, Any]) -> str:
    """Scores beside each other."""
    besides = ("kind", "step", "phase", "tokens", "seconds")
    named = [f"{name} {value:.4f}" for name, value in figures.items() if name not in besides]
    return "  ".join(named)


def result_lines(results: "Results") -> Iterator[str]:
    """The table of all runs when there are several, and the best scores."""
    if len(results.outcomes) > 1:
        yield f"{'learning rate':>13}  {'weight decay':>12}  {'epochs':>6}  {results.metric}"
        for each in results.combinations:
            yield _combination(each, results.metric)
    best = results.best
    for split in ("dev", "test"):
        if figures := getattr(best, split):
            yield f"{split:<4}  {scores_of(figures)}"
    yield f"best weights after step {best.best_step:,} of {best.steps:,}; {duration(best.seconds)}"


def _combination(each: "Combination", metric: str) -> str:
    settings = f"{each.learning_rate:>13g}  {each.weight_decay:>12g}  {each.epochs:>6}"
    shown = [
        f"{split} {each.mean(split)[metric]:.4f} ± {each.spread(split)[metric]:.4f}"
        for split in ("dev", "test")
        if getattr(each.outcomes[0], split)
    ]
    return f"{settings}  {'  '.join(shown)}"


def _step_details(record: Mapping[str, Any]) -> str:
    return f"loss {record['loss']:.3f}  {record['tokens_per_second']:,.0f} tokens/s"


def _fact(value: object) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    shown = [f"{name} ({count:,})" for name, count in list(value.items())[:_MAX_LABELS]]
    more = len(value) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
