"""`modernbert tag`: finds the entities of texts."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

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
from modernbert.data.settings import InputSettings, ShareSettings

if TYPE_CHECKING:
    from modernbert.inference.tagger import Entity


_ROWS = InputSettings()
_ALONE = ShareSettings()


@takes_settings
def tag(
    model: Model,
    texts: TextArguments = None,
    input_file: InputFile = None,
    precision: PrecisionOption = PrecisionName.AUTO,
    batch_tokens: BatchTokens = None,
    rows: InputSettings = _ROWS,
    output: ResultsFile = None,
    share: ShareSettings = _ALONE,
    as_json: AsJson = False,
) -> None:
    """Find the entities of texts, or whatever the model tags.

    With --json, each line is an object with the id, the text and its entities with their offsets.
    With --output, such lines are written to a file, which several tasks can share with --task and
    --tasks; --tasks alone joins what they computed.
    """
    require_output(output, texts, input_file, share)
    look_at(model, "tagger", input_file=input_file, settings=rows, kind="words")
    from modernbert.inference.tagger import Tagger

    tagger = Tagger.from_pretrained(model, precision=precision.value)
    run = partial(tagger.stream, batch_tokens=batch_tokens)
    if output is not None and input_file is not None:
        reader = TextInput(input_file, rows, kind="words", share=share)
        options = description_of("tag", model, rows, precision=precision.value)
        write_results(output, reader, options, run, _values, as_json=as_json)
        return
    show_results(
        results_of(texts, input_file, run, rows, kind="words"),
        as_json,
        name="entities",
        parts=_parts,
        lines=_lines,
    )


def _values(record: InputRow, entities: "list[Entity]") -> dict[str, Any]:
    return {"id": record.id, "text": record.shown, "entities": _parts(record, entities)}


def _parts(record: InputRow, entities: "list[Entity]") -> list[dict[str, Any]]:
    found = []
    for entity in entities:
        start, end = _characters(record, entity)
        parts = {"start": start, "end": end, "text": record.text[start:end]}
        found.append({**asdict(entity), **parts})
    return found


def _characters(record: InputRow, entity: "Entity") -> tuple[int, int]:
    """Where an entity stands in the text; of words that is their text with blanks between."""
    if isinstance(record.given, str):
        return entity.start, entity.end
    before = " ".join([*record.given[: entity.start], ""])
    return len(before), len(before) + len(" ".join(record.given[entity.start : entity.end]))


def _lines(record: InputRow, entities: "list[Entity]") -> Iterator[str]:
    for each in entities:
        start, end = _characters(record, each)
        yield f"{each.label} {each.score:.4f}  {record.text[start:end]}"
