"""`modernbert average`: several states of a model averaged into one."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from annotated_types import Ge

from modernbert.cli.options import AsJson, echo_json, takes_settings
from modernbert.errors import SettingsError
from modernbert.settings import Doc, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from modernbert.tasks.pretraining.averaging import AveragedPart


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


_SETTINGS = AverageSettings()


@takes_settings
def average(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="Folders of models or checkpoints, or of runs that kept some.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="The folder to write the averaged model to.", show_default=False
        ),
    ],
    settings: AverageSettings = _SETTINGS,
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
        typer.echo("\n".join(_lines(parts, output, figures)))


def _lines(
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
