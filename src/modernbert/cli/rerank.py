"""`modernbert rerank`: documents in the order in which they answer a query."""

from typing import Annotated

import typer

from modernbert.cli.inference_options import (
    BatchTokens,
    InputFile,
    Model,
    Precision,
    PrecisionOption,
    Strict,
    Texts,
    records_of,
)
from modernbert.cli.options import AsJson, TextField, echo_json


def rerank(
    model: Model,
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="What the texts answer.", show_default=False)
    ],
    texts: Texts = None,
    input_file: InputFile = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Documents to show.", show_default="all")
    ] = None,
    precision: PrecisionOption = Precision.AUTO,
    batch_tokens: BatchTokens = None,
    text_field: TextField = "text",
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Order texts by how well they answer a query.

    With --json one object a line, the best text first.
    """
    from modernbert.inference.reranker import Reranker

    reranker = Reranker.from_pretrained(model, precision=precision.value)
    records = list(records_of(texts, input_file, text_field=text_field, strict=strict))
    ranked = reranker.rank(
        query, [record.text for record in records], top_k=top_k, batch_tokens=batch_tokens
    )
    for each in ranked:
        record = records[each.index]
        if as_json:
            echo_json({"id": record.id, "text": record.text, "score": each.score})
        else:
            typer.echo(f"{each.score:.4f}  {record.text}")
