"""The verbs that predict something for texts: fill-mask, classify, tag, answer and rerank."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modernbert.cli.inference import (
    BatchTokens,
    InputFile,
    Model,
    PrecisionOption,
    ResultsFile,
    TextArguments,
    deliver,
    description_of,
    look_at,
    records_of,
    require_output,
    results_of,
    write_results,
)
from modernbert.cli.options import AsJson, argument, echo_json, takes_settings
from modernbert.cli.terminal import tell
from modernbert.cli.text_input import InputRow, TextInput
from modernbert.data.settings import (
    InputSettings,
    PairInputSettings,
    QuestionInputSettings,
    ShareSettings,
)
from modernbert.errors import InputError
from modernbert.reading import read_text

if TYPE_CHECKING:
    from modernbert.inference.classifier import LabelScore
    from modernbert.inference.fill_mask import Prediction
    from modernbert.inference.question_answerer import Answer
    from modernbert.inference.reranker import Reranker
    from modernbert.inference.tagger import Entity

_ROWS, _PAIRS, _QUESTIONS = InputSettings(), PairInputSettings(), QuestionInputSettings()
_ALONE = ShareSettings()


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
    precision: PrecisionOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Predict the most likely tokens for each [MASK] in a text.

    With --json, each line is an object with the text and a list of predictions for each mask.
    """
    look_at(model, "masked_lm", "sparse")
    from modernbert.inference.fill_mask import FillMask

    predict = FillMask.from_pretrained(model, precision=precision)
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


@takes_settings
def classify(
    model: Model,
    texts: TextArguments = None,
    input_file: InputFile = None,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="Number of labels to show for each text.", show_default="all"),
    ] = None,
    precision: PrecisionOption = "auto",
    batch_tokens: BatchTokens = None,
    rows: PairInputSettings = _PAIRS,
    output: ResultsFile = None,
    share: ShareSettings = _ALONE,
    as_json: AsJson = False,
) -> None:
    """Predict the labels of texts, with their scores.

    With --json, each line is an object with the id, the text and its labels, the best first. If a
    text may have any number of labels, the predicted ones are marked with *.

    With --output, such objects are written to a file, which several tasks can share with --task and
    --tasks; --tasks alone joins what they computed.
    """
    require_output(output, texts, input_file, share)
    look_at(model, "classifier", "reranker", input_file=input_file, settings=rows, kind="pairs")
    from modernbert.inference.classifier import Classifier

    classifier = Classifier.from_pretrained(model, precision=precision)

    def run(given: Iterable[str]) -> "Iterator[list[LabelScore]]":
        return classifier.stream(given, top_k=top_k, batch_tokens=batch_tokens)

    deliver(
        "classify",
        model,
        texts,
        input_file,
        run,
        rows,
        kind="pairs",
        name="labels",
        parts=lambda _, labels: [_label_values(label) for label in labels],
        lines=lambda _, labels: iter(["  ".join(map(_shown_label, labels))]),
        output=output,
        share=share,
        as_json=as_json,
        options={"precision": precision, "top_k": top_k},
    )


def _label_values(label: "LabelScore") -> dict[str, Any]:
    return {name: value for name, value in asdict(label).items() if value is not None}


def _shown_label(label: "LabelScore") -> str:
    return f"{label.label} {label.score:.4f}{'*' if label.is_chosen else ''}"


@takes_settings
def tag(
    model: Model,
    texts: TextArguments = None,
    input_file: InputFile = None,
    precision: PrecisionOption = "auto",
    batch_tokens: BatchTokens = None,
    rows: InputSettings = _ROWS,
    output: ResultsFile = None,
    share: ShareSettings = _ALONE,
    as_json: AsJson = False,
) -> None:
    """Find the entities of texts, or what else the model tags.

    With --json, each line is an object with the id, the text and its entities with their offsets.
    With --output, such lines are written to a file, which several tasks can share with --task and
    --tasks; --tasks alone joins what they computed.
    """
    require_output(output, texts, input_file, share)
    look_at(model, "tagger", input_file=input_file, settings=rows, kind="words")
    from modernbert.inference.tagger import Tagger

    tagger = Tagger.from_pretrained(model, precision=precision)
    run = partial(tagger.stream, batch_tokens=batch_tokens)
    deliver(
        "tag",
        model,
        texts,
        input_file,
        run,
        rows,
        kind="words",
        name="entities",
        parts=_entity_values,
        lines=_entity_lines,
        output=output,
        share=share,
        as_json=as_json,
        options={"precision": precision},
    )


def _entity_values(record: InputRow, entities: "list[Entity]") -> list[dict[str, Any]]:
    found = []
    for entity in entities:
        start, end = _characters(record, entity)
        parts = {"start": start, "end": end, "text": record.text[start:end]}
        found.append({**asdict(entity), **parts})
    return found


def _characters(record: InputRow, entity: "Entity") -> tuple[int, int]:
    """Return the place of an entity in the text; words are joined by blanks."""
    if isinstance(record.given, str):
        return entity.start, entity.end
    before = " ".join([*record.given[: entity.start], ""])
    return len(before), len(before) + len(" ".join(record.given[entity.start : entity.end]))


def _entity_lines(record: InputRow, entities: "list[Entity]") -> Iterator[str]:
    for each in entities:
        start, end = _characters(record, each)
        yield f"{each.label} {each.score:.4f}  {record.text[start:end]}"


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
    precision: PrecisionOption = "auto",
    batch_tokens: BatchTokens = None,
    rows: QuestionInputSettings = _QUESTIONS,
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

    answerer = QuestionAnswerer.from_pretrained(model, precision=precision, stride=stride)
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


@takes_settings
def rerank(
    model: Model,
    query: Annotated[str, argument("QUERY", "The query that the texts should answer.")],
    texts: TextArguments = None,
    input_file: InputFile = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Number of documents to show.", show_default="all")
    ] = None,
    precision: PrecisionOption = "auto",
    batch_tokens: BatchTokens = None,
    rows: InputSettings = _ROWS,
    output: ResultsFile = None,
    share: ShareSettings = _ALONE,
    as_json: AsJson = False,
) -> None:
    """Sort texts by how well they answer a query.

    With --json, each line is an object with the id, the text and its score. With --output, such
    lines are written to a file, which several tasks can share with --task and --tasks; --tasks
    alone joins and sorts what they computed.
    """
    require_output(output, texts, input_file, share)
    look_at(model, "reranker", "classifier", input_file=input_file, settings=rows)
    from modernbert.inference.reranker import Reranker

    reranker = Reranker.from_pretrained(model, precision=precision)
    if output is not None and input_file is not None:
        reader = TextInput(input_file, rows, share=share)
        options = description_of("rerank", model, rows, precision=precision, query=query)
        run = partial(_scores_of, reranker, query, batch_tokens)
        write_results(
            output, reader, options, run, _ranked_values, as_json=as_json, by="score", top_k=top_k
        )
        return
    records = list(records_of(texts, input_file, rows))
    ranked = reranker.rank(
        query, [record.text for record in records], top_k=top_k, batch_tokens=batch_tokens
    )
    for each in ranked:
        record = records[each.index]
        if as_json:
            echo_json({"id": record.id, "text": record.text, "score": each.score})
        else:
            typer.echo(f"{each.score:.4f}  {record.text}")


def _scores_of(
    reranker: "Reranker", query: str, batch_tokens: int | None, texts: Iterable[str]
) -> Iterator[float]:
    return reranker.stream(((query, text) for text in texts), batch_tokens=batch_tokens)


def _ranked_values(record: InputRow, score: float) -> dict[str, Any]:
    return {"id": record.id, "text": record.shown, "score": score}
