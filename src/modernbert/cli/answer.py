"""`modernbert answer`: answers questions about a text."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modernbert.cli.inference_options import (
    BatchTokens,
    Model,
    PrecisionName,
    PrecisionOption,
    look_at,
    results_of,
)
from modernbert.cli.options import AsJson, echo_json
from modernbert.errors import InputError

if TYPE_CHECKING:
    from modernbert.inference.question_answerer import Answer


def answer(
    model: Model,
    context: Annotated[
        Path,
        typer.Option(
            "--context", "-c", help="File of the text that holds the answers.", show_default=False
        ),
    ],
    questions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[QUESTION]...",
            help="Questions; if none is given, the lines of stdin are read.",
        ),
    ] = None,
    must_answer: Annotated[
        bool,
        typer.Option(
            "--must-answer", help="Give an answer even if it is more likely that there is none."
        ),
    ] = False,
    stride: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Tokens by which neighbouring windows of a long text overlap.",
            show_default="128 or a quarter of a window",
        ),
    ] = None,
    precision: PrecisionOption = PrecisionName.AUTO,
    batch_tokens: BatchTokens = None,
    as_json: AsJson = False,
) -> None:
    """Find the answers to questions in a text of any length.

    With --json, each line is an object with the id, the question, and the answer with its score and
    its offsets.
    """
    try:
        text = context.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{context}: is not a readable text file: {error}") from None
    look_at(model, "answerer")
    from modernbert.inference.question_answerer import QuestionAnswerer

    answerer = QuestionAnswerer.from_pretrained(model, precision=precision.value, stride=stride)

    def run(given: Iterable[str]) -> "Iterator[Answer]":
        pairs = ((question, text) for question in given)
        return answerer.stream(pairs, must_answer=must_answer, batch_tokens=batch_tokens)

    for record, found in results_of(questions, None, run):
        if as_json:
            echo_json({"id": record.id, "question": record.text, "answer": asdict(found)})
        else:
            shown = f"{found.text}  ({found.score:.4f})" if found.text else "no answer"
            typer.echo(f"{record.text}\n    {shown}")
