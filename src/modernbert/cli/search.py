"""`modernbert search`: the texts of an index that are nearest to a query."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modernbert.cli.inference_options import (
    InputFile,
    Model,
    Precision,
    PrecisionOption,
    Texts,
    results_of,
)
from modernbert.cli.options import AsJson, echo_json
from modernbert.cli.settings_options import takes_settings
from modernbert.data.rows.file_settings import InputSettings
from modernbert.errors import InputError

if TYPE_CHECKING:
    from modernbert.inference.search import Hit


_ROWS = InputSettings()


@takes_settings
def search(
    index: Annotated[
        Path,
        typer.Argument(
            metavar="INDEX", help="What `embed -o NAME.index` has made.", show_default=False
        ),
    ],
    model: Model,
    texts: Texts = None,
    input_file: InputFile = None,
    top_k: Annotated[int, typer.Option(min=1, help="Hits for each query.")] = 10,
    oversample: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of an int8 or binary index: how many times top-k are scored again by float32.",
            show_default="4 and 16",
        ),
    ] = None,
    rows: InputSettings = _ROWS,
    precision: PrecisionOption = Precision.AUTO,
    as_json: AsJson = False,
) -> None:
    """Find the texts of an index that are nearest to each query.

    The queries get the prompt that the model has for them; an index of one vector a token is
    searched by MaxSim. With --json one object a line: the
    query, and the list of its hits.
    """
    from modernbert.inference.loading import folder_fingerprint
    from modernbert.inference.open_index import open_index, search_texts
    from modernbert.inference.retriever import load_retriever
    from modernbert.model.config_file import find_model

    opened = open_index(index)
    folder = find_model(model, weights=True)
    if opened.manifest.model and opened.manifest.model != folder_fingerprint(folder):
        raise InputError(f"{model}: not the model whose vectors {index} holds; take that one")
    retriever = load_retriever(folder, precision.value)

    def run(queries: Iterable[str]) -> "Iterator[list[Hit]]":
        return search_texts(opened, retriever, queries, top_k, oversample=oversample)

    for record, hits in results_of(texts, input_file, run, rows):
        if as_json:
            echo_json({"id": record.id, "query": record.text, "hits": list(map(asdict, hits))})
        else:
            typer.echo("\n".join(_report(record.text, hits)))


def _report(query: str, hits: "list[Hit]") -> Iterator[str]:
    """The query, and below it a line for each hit."""
    yield query
    for hit in hits:
        yield f"    {hit.score:.4f}  {json.dumps(hit.id, ensure_ascii=False)[1:-1]}"
