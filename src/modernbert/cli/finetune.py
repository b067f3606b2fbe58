"""`modernbert finetune`: trains a model for a task; one verb per task."""

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from modernbert.cli.options import argument, echo_json
from modernbert.cli.terminal import Meter, duration, is_first_process, tell

if TYPE_CHECKING:
    from modernbert.tasks.tuning.job import Combination, Results, TuningJob
import dataclasses
import inspect
from pathlib import Path
from typing import Annotated

from modernbert.cli.options import (
    AsJson,
    SettingOption,
    example,
    options_of,
    settings_of,
    takes_revision,
)
from modernbert.errors import SettingsError
from modernbert.overrides import overridden, read_assignments
from modernbert.settings import load_mapping
from modernbert.tasks.finetune import SWEPT, VERBS, default_output
from modernbert.tasks.tuning.recipe import Verb

_MAX_LABELS = 12
_NO_DEV = "note: no dev rows, so the last weights are kept, unmeasured on the way; see --dev"


def report(recipe: Any, train: "Callable[[TuningWatch], Results]", *, as_json: bool) -> None:
    """Train with the progress on stderr, and the result on stdout.

    Args:
        recipe: The recipe of the verb, such as `ClassifyRecipe`.
        train: All runs of the recipe; a watch hears of each record.
        as_json: Whether to write JSON.

    Raises:
        typer.Exit: a signal has stopped the runs, which are saved.
    """
    from modernbert.tasks.tuning.sweep import MODEL_FOLDER
    from modernbert.training.interruption import Interrupted

    try:
        with Meter("reading") as meter:
            watch = TuningWatch(meter, num_runs=len(recipe.runs()))
            results = train(watch)
    except Interrupted as stopped:
        tell(f"stopped, all of it saved; go on with\n  modernbert {shlex.join(sys.argv[1:])}")
        raise typer.Exit(stopped.exit_code) from None
    if not is_first_process():
        return
    model = recipe.output / MODEL_FOLDER
    if as_json:
        echo_json({"model": str(model), **results.to_mapping()})
        return
    if not watch.has_begun:
        tell("already finished; these are the scores of then, and nothing was trained now")
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


class TuningWatch:
    """Shows the records of all runs: steps as a bar, evaluations as lines."""

    def __init__(self, meter: Meter, num_runs: int) -> None:
        self._meter, self._num_runs = meter, num_runs
        self._numbers: dict[str, int] = {}
        self._done: dict[str, float] = {}
        self._totals: dict[str, int] = {}

    @property
    def has_begun(self) -> bool:
        """Whether any run was trained, or taken up, since this watch began."""
        return bool(self._numbers)

    def __call__(self, run: str, record: Mapping[str, Any]) -> None:
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
    """Write scores beside each other."""
    besides = ("kind", "step", "phase", "tokens", "seconds")
    named = [f"{name} {value:.4f}" for name, value in figures.items() if name not in besides]
    return "  ".join(named)


def result_lines(results: "Results") -> Iterator[str]:
    """Yield the table of all runs when there are several, and the best scores."""
    if len(results.outcomes) > 1:
        yield f"{'learning rate':>13}  {'weight decay':>12}  {'epochs':>6}  {results.metric}"
        for each in results.combinations:
            yield _combination(each, results.metric)
    best = results.best
    for split in ("dev", "test"):
        if figures := getattr(best, split):
            yield f"{split:<4}  {scores_of(figures)}"
    yield from results.comparisons
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


app = typer.Typer(
    help="Fine-tune a model on labelled rows or on queries and documents.",
    epilog=example("finetune classify -m runs/mine/model --train train.csv --dev dev.csv"),
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_HELP = """{summary}

Progress goes to stderr, and the folder of the finished model to stdout. You can stop the training
at any moment: the same command continues it. To train on several GPUs, start it with torchrun.
"""

# Given more than once, these make a sweep of several runs: where their values go then.
_SWEPT = {("training", name): place.partition(".")[2] for name, place in SWEPT.items()}

Arguments = Annotated[
    list[str] | None,
    argument(
        "RECIPE.toml KEY=VALUE",
        "A recipe, and values that take the place of its own, such as training.epochs=2; "
        "options take precedence over both.",
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(min=1, help="Train this many runs, with seeds 0, 1, ...", show_default="1"),
]


def _command(name: str, verb: Verb) -> Any:
    """The command of a verb, with an option for each field of its recipe."""
    options = [_optional(each) for each in options_of(verb.recipe_class)]

    def command(
        arguments: list[str] | None, seeds: int | None, as_json: bool, **values: Any
    ) -> None:
        from modernbert.tasks.finetune import finetune, look_at

        recipe, changes = _recipe_and_values(arguments or [])
        given = {each.path: _or_none(values[each.name]) for each in options}
        given[("sweep", "seeds")] = None if seeds is None else list(range(seeds))
        base = {} if recipe is None else load_mapping(recipe)
        base = overridden(base, read_assignments(changes), verb.recipe_class)
        settings = settings_of(
            verb.recipe_class,
            options,
            _completed(name, _swept(given), base),
            base=base,
            where="options" if recipe is None else str(recipe),
        )
        look_at(settings)
        report(
            settings,
            lambda watch: finetune(name, settings, on_job=tell_of_job, on_record=watch),
            as_json=as_json,
        )

    own = {"arguments": (Arguments, None), "seeds": (Seeds, None), "as_json": (AsJson, False)}
    apart = [
        inspect.Parameter(
            each, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for each, (annotation, default) in own.items()
    ]
    parameters = [apart[0], *(each.parameter() for each in options), *apart[1:]]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _recipe_and_values(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The recipe among some arguments, which comes first, and the values after it."""
    if arguments and (Path(arguments[0]).exists() or "=" not in arguments[0]):
        return arguments[0], arguments[1:]
    return None, arguments


def _optional(option: SettingOption) -> SettingOption:
    """An option that says nothing when it is not given, so that a recipe's value counts."""
    shown = option.doc.default or (f"{option.default}" if option.shows_default else None)
    if shown and isinstance(option.default, bool):
        shown = f"{'' if option.default else 'no-'}{option.path[-1].replace('_', '-')}"
    doc = dataclasses.replace(option.doc, default=shown)
    if option.path in _SWEPT:
        doc = dataclasses.replace(doc, text=f"{doc.text} Repeat it to try several values.")
        return dataclasses.replace(option, doc=doc, type=tuple[option.type, ...], default=())  # type: ignore[name-defined]
    nothing = () if isinstance(option.default, tuple) else None
    return dataclasses.replace(option, doc=doc, default=nothing)


def _or_none(value: Any) -> Any:
    """The value of an option; None for a repeatable one that was not given."""
    return None if isinstance(value, list | tuple) and not value else value


def _swept(given: Mapping[tuple[str, ...], Any]) -> dict[tuple[str, ...], Any]:
    """The values with those that make a sweep in its table."""
    values = dict(given)
    for path, name in _SWEPT.items():
        several = values.pop(path, None) or []
        values[path] = several[0] if len(several) == 1 else None
        values[("sweep", name)] = list(several) if len(several) > 1 else None
    return values


def _completed(
    name: str, given: dict[tuple[str, ...], Any], base: Mapping[str, Any]
) -> dict[tuple[str, ...], Any]:
    """The values with a folder for the result where none is named.

    Raises:
        SettingsError: There is no model, or there are no rows.
    """
    train = given.get(("data", "train")) or base.get("data", {}).get("train")
    if not (given.get(("model",)) or base.get("model")):
        raise SettingsError("--model: is missing; name a model folder or a hub id")
    if not train:
        raise SettingsError("--train: is missing; name the rows, such as --train train.csv")
    if not (given.get(("output",)) or base.get("output")):
        given[("output",)] = default_output(name, str(train))
    return {path: str(value) if isinstance(value, Path) else value for path, value in given.items()}


for _name, _verb in VERBS.items():
    app.command(
        name=_name,
        help=_HELP.format(summary=_verb.summary),
        epilog=example(f"finetune {_name} -m runs/mine/model --train train.jsonl --dev dev.jsonl"),
    )(takes_revision(_command(_name, _verb)))
