"""`modernbert tag`: the entities of texts."""

from dataclasses import asdict
from functools import partial

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


def tag(
    model: Model,
    texts: Texts = None,
    input_file: InputFile = None,
    precision: PrecisionOption = Precision.AUTO,
    batch_tokens: BatchTokens = None,
    text_field: TextField = "text",
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Find the entities of each text: names, say, or what else the model marks.

    With --json one object a line: the id, the text, and its entities with their places in it.
    """
    from modernbert.inference.tagger import Tagger

    tagger = Tagger.from_pretrained(model, precision=precision.value)
    run = partial(tagger.stream, batch_tokens=batch_tokens)
    with warnings_told():
        for record, entities in results_of(
            texts, input_file, run, text_field=text_field, strict=strict
        ):
            text = record.text
            if as_json:
                found = [{**asdict(each), "text": text[each.start : each.end]} for each in entities]
                echo_json({"id": record.id, "text": text, "entities": found})
            else:
                typer.echo(text)
                for each in entities:
                    typer.echo(f"    {each.label} {each.score:.4f}  {text[each.start : each.end]}")
