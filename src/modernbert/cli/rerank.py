"""`modernbert rerank`: sorts documents by how well they answer a query."""

from collections.abc import Iterable, Iterator
from functools import partial
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
    records_of,
)
from modernbert.cli.options import AsJson, echo_json, takes_settings
from modernbert.cli.results import ResultsFile, description_of, require_output, write_results
from modernbert.cli.text_input import InputRow, TextInput
from modernbert.data.settings import InputSettings, ShareSettings

if TYPE_CHECKING:
    from modernbert.inference.reranker import Reranker

_ROWS = InputSettings()
_ALONE = ShareSettings()


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

    reranker = Reranker.from_pretrained(model, precision=precision.value)
    if output is not None and input_file is not None:
        reader = TextInput(input_file, rows, share=share)
        options = description_of("rerank", model, rows, precision=precision.value, query=query)
        run = partial(_scores, reranker, query, batch_tokens)
        write_results(
            output, reader, options, run, _values, as_json=as_json, by="score", top_k=top_k
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


def _scores(
    reranker: "Reranker", query: str, batch_tokens: int | None, texts: Iterable[str]
) -> Iterator[float]:
    return reranker.stream(((query, text) for text in texts), batch_tokens=batch_tokens)


def _values(record: InputRow, score: float) -> dict[str, Any]:
    return {"id": record.id, "text": record.shown, "score": score}
