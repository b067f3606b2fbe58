"""`modernbert tag`: the entities of texts."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from modernbert.cli.inference_options import (
    BatchTokens,
    InputFile,
    Model,
    Precision,
    PrecisionOption,
    Strict,
    Texts,
    results_of,
    show_results,
)
from modernbert.cli.options import AsJson, TextField
from modernbert.cli.text_input import Record

if TYPE_CHECKING:
    from modernbert.inference.entities import Entity


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
    show_results(
        results_of(texts, input_file, run, text_field=text_field, strict=strict),
        as_json,
        name="entities",
        parts=_parts,
        lines=_lines,
    )


def _parts(record: Record, entities: "list[Entity]") -> list[dict[str, Any]]:
    return [{**asdict(x), "text": record.text[x.start : x.end]} for x in entities]


def _lines(record: Record, entities: "list[Entity]") -> Iterator[str]:
    for each in entities:
        yield f"{each.label} {each.score:.4f}  {record.text[each.start : each.end]}"
