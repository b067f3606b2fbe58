"""`modernbert classify`: predicts the labels of texts."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modernbert.cli.inference_options import (
    BatchTokens,
    InputFile,
    Model,
    PrecisionName,
    PrecisionOption,
    TextArguments,
    look_at,
    results_of,
    show_results,
)
from modernbert.cli.options import AsJson, takes_settings
from modernbert.cli.results import ResultsFile, description_of, require_output, write_results
from modernbert.cli.text_input import InputRow, TextInput
from modernbert.data.settings import PairInputSettings, ShareSettings

if TYPE_CHECKING:
    from modernbert.inference.classifier import LabelScore


_ROWS = PairInputSettings()
_ALONE = ShareSettings()


@takes_settings
def classify(
    model: Model,
    texts: TextArguments = None,
    input_file: InputFile = None,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="Number of labels to show for each text.", show_default="all"),
    ] = None,
    precision: PrecisionOption = PrecisionName.AUTO,
    batch_tokens: BatchTokens = None,
    rows: PairInputSettings = _ROWS,
    output: ResultsFile = None,
    share: ShareSettings = _ALONE,
    as_json: AsJson = False,
) -> None:
    """Predict the labels of texts, with their scores.

    With --json, each line is an object with the id, the text and its labels, the best first. If a
    text may have any number of labels, those that it has are marked with *.

    With --output, such objects are written to a file, which several tasks can share with --task and
    --tasks; --tasks alone joins what they computed.
    """
    require_output(output, texts, input_file, share)
    look_at(model, "classifier", "reranker", input_file=input_file, settings=rows, kind="pairs")
    from modernbert.inference.classifier import Classifier

    classifier = Classifier.from_pretrained(model, precision=precision.value)

    def run(given: Iterable[str]) -> "Iterator[list[LabelScore]]":
        return classifier.stream(given, top_k=top_k, batch_tokens=batch_tokens)

    if output is not None and input_file is not None:
        reader = TextInput(input_file, rows, kind="pairs", share=share)
        options = description_of("classify", model, rows, precision=precision.value, top_k=top_k)
        write_results(output, reader, options, run, _values, as_json=as_json)
        return
    show_results(
        results_of(texts, input_file, run, rows, kind="pairs"),
        as_json,
        name="labels",
        parts=lambda _, labels: [_as_json(label) for label in labels],
        lines=lambda _, labels: iter(["  ".join(map(_shown, labels))]),
    )


def _as_json(label: "LabelScore") -> dict[str, Any]:
    return {name: value for name, value in asdict(label).items() if value is not None}


def _shown(label: "LabelScore") -> str:
    return f"{label.label} {label.score:.4f}{'*' if label.is_chosen else ''}"


def _values(record: InputRow, labels: "list[LabelScore]") -> dict[str, Any]:
    return {"id": record.id, "text": record.shown, "labels": list(map(_as_json, labels))}
