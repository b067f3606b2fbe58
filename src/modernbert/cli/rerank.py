"""`modernbert rerank`: sorts documents by how well they answer a query."""

from typing import Annotated

import typer

from modernbert.cli.inference_options import (
    BatchTokens,
    InputFile,
    Model,
    PrecisionName,
    PrecisionOption,
    TextArguments,
    look_at,
    records_of,
)
from modernbert.cli.options import AsJson, echo_json, takes_settings
from modernbert.data.settings import InputSettings

_ROWS = InputSettings()


@takes_settings
def rerank(
    model: Model,
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY", help="The query that the texts should answer.", show_default=False
        ),
    ],
    texts: TextArguments = None,
    input_file: InputFile = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Number of documents to show.", show_default="all")
    ] = None,
    precision: PrecisionOption = PrecisionName.AUTO,
    batch_tokens: BatchTokens = None,
    rows: InputSettings = _ROWS,
    as_json: AsJson = False,
) -> None:
    """Sort texts by how well they answer a query.

    With --json, each line is an object with the id, the text and its score.
    """
    look_at(model, "reranker", "classifier", input_file=input_file, settings=rows)
    from modernbert.inference.reranker import Reranker

    reranker = Reranker.from_pretrained(model, precision=precision.value)
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
