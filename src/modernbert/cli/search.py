"""`modernbert search`: finds the texts of an index that are nearest to a query."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modernbert.cli.inference_options import (
    InputFile,
    Model,
    PrecisionName,
    PrecisionOption,
    TextArguments,
    look_at,
    results_of,
)
from modernbert.cli.options import AsJson, echo_json, takes_settings
from modernbert.data.settings import InputSettings
from modernbert.errors import InputError

if TYPE_CHECKING:
    from modernbert.inference.index import Hit


_ROWS = InputSettings()
_SHOWN_CHARACTERS = 100


@takes_settings
def search(
    index: Annotated[
        Path,
        typer.Argument(
            metavar="INDEX",
            help="An index written by `modernbert embed -o NAME.index`.",
            show_default=False,
        ),
    ],
    model: Model,
    texts: TextArguments = None,
    input_file: InputFile = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of hits for each query.")] = 10,
    oversample: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rescore this many times top-k hits in float32 (int8 and binary indexes).",
            show_default="4 for int8, 16 for binary",
        ),
    ] = None,
    rows: InputSettings = _ROWS,
    precision: PrecisionOption = PrecisionName.AUTO,
    as_json: AsJson = False,
) -> None:
    """Find the texts of an index that are nearest to a query.

    Queries get the model's prompt for queries. An index with one vector per token is searched by
    MaxSim. Each hit is shown with its id and the beginning of its text. With --json, each line is
    an object with a query and the list of its hits, with whole texts.
    """
    from modernbert.kinds import NAMES, kind_of

    if (found := kind_of(index)) != "index":
        raise InputError(f"{index}: holds {NAMES[found]}, expected a search index")
    look_at(model, input_file=input_file, settings=rows)
    from modernbert.inference.index import Index
    from modernbert.inference.loading import folder_fingerprint
    from modernbert.inference.retriever import load_retriever, search_texts
    from modernbert.model.config_file import find_model

    opened = Index.open(index)
    folder = find_model(model, weights=True)
    if opened.manifest.model and opened.manifest.model != folder_fingerprint(folder):
        raise InputError(f"{model}: did not make the vectors of {index}; use that one")
    retriever = load_retriever(folder, precision.value)

    def run(queries: Iterable[str]) -> "Iterator[list[Hit]]":
        return search_texts(opened, retriever, queries, top_k, oversample=oversample)

    for record, hits in results_of(texts, input_file, run, rows):
        if as_json:
            echo_json({"id": record.id, "query": record.text, "hits": list(map(asdict, hits))})
        else:
            typer.echo("\n".join(_report(record.text, hits)))


def _report(query: str, hits: "list[Hit]") -> Iterator[str]:
    """Show a query, and below it a line for each hit."""
    yield query
    for hit in hits:
        line = f"    {hit.score:.4f}  {json.dumps(hit.id, ensure_ascii=False)[1:-1]}"
        yield line if hit.text is None else f"{line}  {_shortened(hit.text)}"


def _shortened(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text[: 2 * _SHOWN_CHARACTERS].split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 3]}..."
