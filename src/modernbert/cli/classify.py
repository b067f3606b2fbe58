"""`modernbert classify`: the labels of texts."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from modernbert.cli.inference_options import (
    BatchTokens,
    InputFile,
    Model,
    Precision,
    PrecisionOption,
    Strict,
    Texts,
    results_of,
    warnings_told,
)
from modernbert.cli.options import AsJson, TextField, echo_json

if TYPE_CHECKING:
    from modernbert.inference.classifier import LabelScore


def classify(
    model: Model,
    texts: Texts = None,
    input_file: InputFile = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Labels of each text.", show_default="all")
    ] = None,
    precision: PrecisionOption = Precision.AUTO,
    batch_tokens: BatchTokens = None,
    text_field: TextField = "text",
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Tell the labels of each text, best first, with their scores.

    With --json one object a line: the id, the text, and its labels.
    """
    from modernbert.inference.classifier import Classifier

    classifier = Classifier.from_pretrained(model, precision=precision.value)

    def run(given: Iterable[str]) -> "Iterator[list[LabelScore]]":
        return classifier.stream(given, top_k=top_k, batch_tokens=batch_tokens)

    with warnings_told():
        for record, labels in results_of(
            texts, input_file, run, text_field=text_field, strict=strict
        ):
            if as_json:
                found = [asdict(label) for label in labels]
                echo_json({"id": record.id, "text": record.text, "labels": found})
            else:
                shown = "  ".join(f"{each.label} {each.score:.4f}" for each in labels)
                typer.echo(f"{record.text}\n    {shown}")
