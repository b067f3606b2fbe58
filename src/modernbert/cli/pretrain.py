"""The verbs of pretraining: `pretrain` trains, `report` draws its page, `average` its models."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from annotated_types import Ge

from modernbert.cli.options import AsJson, Values, argument, echo_json, takes_settings
from modernbert.cli.recipe import find_recipe
from modernbert.cli.terminal import Meter, duration, is_first_process, short_count, tell
from modernbert.errors import RunError, SettingsError
from modernbert.extras import import_extra
from modernbert.overrides import read_assignments
from modernbert.settings import Doc, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from modernbert.tasks.pretraining.averaging import AveragedPart
    from modernbert.tasks.pretraining.recipe import PretrainingRecipe
    from modernbert.training.trainer import Result


def pretrain(
    recipe: Annotated[
        Path,
        argument("RECIPE", "The recipe to run: a .toml file, or a name that `recipe list` shows."),
    ],
    values: Values = None,
    as_json: AsJson = False,
) -> None:
    """Pretrain a model as described by a recipe.

    KEY=VALUE takes the place of a value of the recipe, such as training.total_tokens=1e9, or
    phases.decay.training.total_tokens=1e8 of one phase.

    Progress goes to stderr, and the folder of the finished model to stdout. You can stop the run at
    any moment, even with kill -9: the same command continues it and ends with the same weights.

    To train on several GPUs, start it with torchrun.
    """
    from modernbert.settings import load_mapping

    path, given = find_recipe(recipe), read_assignments(values or [])
    load_mapping(path)  # a missing file is told of before torch is imported
    from modernbert.tasks.pretraining.recipe import read_recipe

    settings = read_recipe(path, given)
    again = shlex.join(["modernbert", "pretrain", str(recipe), *(values or [])])
    result = train(settings, go_on=again)
    if not is_first_process():
        return
    model = settings.output / "model"
    if as_json:
        echo_json(
            {
                "status": result.status,
                "step": result.progress.step,
                "tokens": result.progress.tokens,
                "evaluation": result.evaluation,
                "model": str(model),
                "phases": [phase.name for phase in settings.phases],
            }
        )
    else:
        typer.echo(model)


def train(recipe: "PretrainingRecipe", *, go_on: str) -> "Result":
    """Pretrain with the progress on stderr, and write the report.

    Args:
        recipe: The recipe of the run.
        go_on: The command that continues an interrupted run.

    Returns:
        The result of the finished run.

    Raises:
        typer.Exit: A signal stopped the run, which is saved.
    """
    from modernbert.report.run_report import write_report
    from modernbert.tasks.pretraining.pretrain import pretrain as run

    with Meter("pretraining") as meter:
        result = run(recipe, observers=[PretrainingWatch(meter)])
    if result.status == "interrupted":
        tell(f"stopped at step {result.progress.step:,} and saved; to continue:\n  {go_on}")
        raise typer.Exit(result.exit_code)
    if is_first_process():
        write_report(recipe.output)
    return result


class PretrainingWatch:
    """Shows a run's records to a person: the steps as a bar, what is rare as a line."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._total_tokens: int | None = None

    def __call__(self, record: dict[str, Any]) -> None:
        """One record, as `Trainer` gives them to its observers."""
        kind = record["kind"]
        if kind in ("start", "resume"):
            self._total_tokens = record["total_tokens"]
        if kind in _PAUSES:
            self._meter.pause(record.get(_PAUSES[kind], 0.0))
        if kind == "step":
            self._meter.update(record["tokens"], self._total_tokens, _step_details(record))
        elif kind in _LINES and (line := _LINES[kind](record)):
            tell(line)


def _step_details(record: dict[str, Any]) -> str:
    return (
        f"loss {record['loss']:.2f}  {record['tokens_per_second']:,.0f} tokens/s  "
        f"{record['fill']:.1%} full"
    )


def _evaluation_line(record: dict[str, Any]) -> str:
    general = ""
    if "general_loss" in record:
        general = f"general text {record['general_loss']:.3f}  {record['general_accuracy']:.1%}  "
    return (
        f"step {record['step']:>6,}  {short_count(record['tokens']):>6} tokens  "
        f"held-out loss {record['held_out_loss']:.3f}  accuracy {record['held_out_accuracy']:.1%}  "
        f"{general}({duration(record['seconds'])})"
    )


def _phase_line(record: dict[str, Any]) -> str:
    """Nothing where a run begins: with one phase there is nothing to tell."""
    if not record["step"]:
        return ""
    return f"phase {record['phase']}: {short_count(record['phase_tokens'])} tokens"


def _averaging_line(record: dict[str, Any]) -> str:
    parts = ", ".join(f"{part['held_out_loss']:.3f}" for part in record["parts"])
    return (
        f"average of {len(record['parts'])} states  held-out loss {record['held_out_loss']:.3f}, "
        f"alone {parts}  {record['path']}"
    )


# Records of what keeps a training from its steps, and where they say for how long.
_PAUSES = {"evaluation": "seconds", "checkpoint": "paused_seconds"}

_LINES: dict[str, Callable[[dict[str, Any]], str]] = {
    "resume": lambda record: f"going on from step {record['step']:,}",
    "phase": _phase_line,
    "evaluation": _evaluation_line,
    "averaging": _averaging_line,
    "warning": lambda record: f"warning: {record['message']}",
    "skipped": lambda record: f"step {record['step']:>6,}  skipped: {record['reason']}",
    "spike": lambda record: (
        f"step {record['step']:>6,}  spike: the loss is {record['loss']:.3f}, "
        f"usual is {record['median']:.3f}"
    ),
    "went_back": lambda record: (
        f"step {record['step']:>6,}  back to the weights of step {record['to_step']:,} after "
        f"{record['skipped_steps']} skipped steps"
    ),
}


def report(
    run: Annotated[Path, argument("RUN", "The folder of a pretraining or a fine-tuning run.")],
) -> None:
    """Write the page and the plots of a run into its folder.

    A pretraining run writes them itself, while it trains and at its end. This command writes them
    again from the log, for example after a run was killed. The page of a fine-tuning run is written
    once, at its end, as it shows the mistakes of the best model. The path of the page goes to
    stdout.
    """
    from modernbert.report.run_report import write_report

    import_extra("matplotlib")
    page = run / "report.html"
    if not (run / "runs").is_dir():  # which a fine-tuning run has
        write_report(run)
    elif not page.exists():
        raise RunError(
            f"{run}: this fine-tuning run has not ended, and its page is written at the end; "
            "repeat the command that began it"
        )
    typer.echo(page)


@dataclass(frozen=True, kw_only=True)
class AverageSettings(Settings):
    """The options of `average`.

    Raises:
        SettingsError: A value is out of its range, or has no effect without another.
    """

    last: Annotated[int | None, Ge(1), Doc("Average only the last N states.")] = None
    best: Annotated[
        int | None, Ge(1), Doc("Average only the N states with the lowest held-out loss.")
    ] = None
    weight: Annotated[
        tuple[float, ...],
        Doc("The weight of each model, in the order given.", default="equal weights"),
    ] = ()
    held_out: Annotated[
        Path | None, Doc("Shards on which to evaluate each state and the average.")
    ] = None
    max_tokens: Annotated[
        int | None, Ge(1), Doc("Evaluate on a random sample of this many tokens.")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens is not None and self.held_out is None:
            raise SettingsError("max_tokens: has no effect without --held-out")


_AVERAGE = AverageSettings()


@takes_settings
def average(
    models: Annotated[
        list[Path],
        argument(
            "MODEL...", "Folders of models, of checkpoints, or of runs that kept checkpoints."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="The folder to write the averaged model to.", show_default=False
        ),
    ],
    settings: AverageSettings = _AVERAGE,
    as_json: AsJson = False,
) -> None:
    """Average the weights of several states of one model.

    With --held-out, the loss of each state and of the average is shown.
    """
    from modernbert.errors import InputError
    from modernbert.hub import CARD
    from modernbert.tasks.pretraining.averaging import (
        PARTS_FILE,
        HeldOut,
        average_parts,
        best,
        measured,
        parts_of,
        write_model,
    )
    from modernbert.tasks.pretraining.card import average_card
    from modernbert.tasks.pretraining.models import load_tokenizer

    if output.exists():
        raise InputError(f"{output}: already exists; choose another --output")
    parts = parts_of(models, settings.weight)[-(settings.last or 0) :]
    tokenizer = load_tokenizer(parts[0].folder)
    evaluation = None
    if settings.held_out is not None:
        evaluation = HeldOut(settings.held_out, tokenizer, settings.max_tokens)
    if evaluation is not None:
        parts = measured(parts, evaluation)
    if settings.best is not None:
        parts = best(parts, settings.best)
    model = average_parts(parts)
    figures = evaluation.figures(model) if evaluation is not None else {}
    note: dict[str, Any] = {**figures, "parts": [part.as_mapping() for part in parts]}
    try:
        card = average_card(model.config, figures, parts, name=output.resolve().name)
        write_model(output, model.cpu(), tokenizer, {PARTS_FILE: note, CARD: card})
    except OSError as error:
        raise InputError(f"{output}: could not be written: {error}") from None
    if as_json:
        echo_json({**note, "model": str(output)})
    else:
        typer.echo("\n".join(_average_lines(parts, output, figures)))


def _average_lines(
    parts: "Sequence[AveragedPart]", output: Path, figures: "dict[str, float] | Any"
) -> "Iterator[str]":
    rows = [(str(part.folder), f"{part.weight:g}", part.figures) for part in parts]
    rows.append((str(output), "", figures))
    width = max(len(name) for name, _, _ in rows)
    if figures:
        yield f"{'':<{width}}  {'weight':>6}  {'loss':>7}  {'accuracy':>8}"
    for name, weight, each in rows:
        line = f"{name:<{width}}  {weight:>6}"
        if each:
            line += f"  {each['held_out_loss']:>7.4f}  {each['held_out_accuracy']:>8.1%}"
        yield line.rstrip()
