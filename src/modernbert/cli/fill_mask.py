"""`modernbert fill-mask`: predicts the tokens behind [MASK]."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from modernbert.cli.inference_options import Model, PrecisionName, PrecisionOption, look_at
from modernbert.cli.options import AsJson, echo_json
from modernbert.cli.terminal import tell

if TYPE_CHECKING:
    from modernbert.inference.fill_mask import Prediction


def fill_mask(
    model: Model,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...",
            help="Texts that contain [MASK]; if none is given, the lines of stdin are read.",
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of predictions for each [MASK].")] = 5,
    precision: PrecisionOption = PrecisionName.AUTO,
    as_json: AsJson = False,
) -> None:
    """Predict the most likely tokens for each [MASK] in a text.

    With --json, each line is an object with the text and a list of predictions for each mask.
    """
    look_at(model, "masked_lm", "sparse")
    from modernbert.inference.fill_mask import FillMask

    predict = FillMask.from_pretrained(model, precision=precision.value)
    for text in texts or _lines_of_stdin():
        masks = predict(text, top_k)
        if as_json:
            predictions = [[asdict(prediction) for prediction in mask] for mask in masks]
            echo_json({"text": text, "masks": predictions})
        else:
            typer.echo("\n".join(report(text, masks)))


def report(text: str, masks: "Sequence[Sequence[Prediction]]") -> Iterator[str]:
    """Show a text, and below it a line for each of its masks."""
    yield text
    for mask in masks:
        yield "    " + predictions_line(mask)


def predictions_line(predictions: "Sequence[Prediction]") -> str:
    """Show the predictions for one mask; quotes make a leading space visible."""
    return "   ".join(f"{each.token!r} {each.score:.1%}" for each in predictions)


def _lines_of_stdin() -> Iterator[str]:
    if sys.stdin.isatty():
        tell("Type one text with [MASK] per line; press Ctrl-D to finish.")
    for line in sys.stdin:
        if line.strip():
            yield line.rstrip("\n")
