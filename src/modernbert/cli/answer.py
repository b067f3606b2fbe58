"""`modernbert answer`: answers questions about a text."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modernbert.cli.inference_options import (
    BatchTokens,
    Model,
    PrecisionName,
    PrecisionOption,
    look_at,
    results_of,
)
from modernbert.cli.options import AsJson, echo_json, takes_settings
from modernbert.data.settings import QuestionInputSettings
from modernbert.errors import InputError
from modernbert.reading import read_text

if TYPE_CHECKING:
    from modernbert.inference.question_answerer import Answer

_ROWS = QuestionInputSettings()


@takes_settings
def answer(
    model: Model,
    questions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[QUESTION]...",
            help="Questions about --context; if none is given, the lines of stdin are read.",
        ),
    ] = None,
    context: Annotated[
        Path | None,
        typer.Option(
            "--context", "-c", help="File of the text that holds the answers.", show_default=False
        ),
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help="A file with a question and a text in each row, such as one in SQuAD's format.",
            show_default=False,
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
    rows: QuestionInputSettings = _ROWS,
    as_json: AsJson = False,
) -> None:
    """Find the answers to questions in texts of any length.

    The questions are about one text, --context, or each row of --input has a question and a text.
    With --json, each line is an object with the id, the question, and the answer with its score and
    its offsets.
    """
    if (context is None) is (input_file is None):
        raise InputError("give either --context or --input")
    if input_file is not None and questions:
        raise InputError("--input: has its own questions; ask others with --context")
    look_at(model, "answerer", input_file=input_file, settings=rows, kind="pairs")
    text = None if context is None else read_text(context)
    from modernbert.inference.question_answerer import QuestionAnswerer

    answerer = QuestionAnswerer.from_pretrained(model, precision=precision.value, stride=stride)
    stream = partial(answerer.stream, must_answer=must_answer, batch_tokens=batch_tokens)

    def run(given: Iterable[Any]) -> "Iterator[Answer]":
        return stream(given if text is None else ((question, text) for question in given))

    for record, found in results_of(questions, input_file, run, rows, kind="pairs"):
        question = record.given if isinstance(record.given, str) else record.given[0]
        if as_json:
            echo_json({"id": record.id, "question": question, "answer": asdict(found)})
        else:
            shown = f"{found.text}  ({found.score:.4f})" if found.text else "no answer"
            typer.echo(f"{question}\n    {shown}")
