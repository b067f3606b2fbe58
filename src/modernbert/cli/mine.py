"""`modernbert mine`: hard negatives for the training of a retriever."""

import json
from pathlib import Path
from typing import Annotated

import typer

from modernbert.cli.formatting import counted
from modernbert.cli.inference_options import (
    Model,
    Precision,
    PrecisionOption,
    speed_of,
    warnings_told,
)
from modernbert.cli.options import AsJson, echo_json
from modernbert.cli.terminal import Meter, tell
from modernbert.errors import InputError


def mine(
    rows: Annotated[
        str,
        typer.Argument(
            metavar="ROWS",
            help="Queries and what answers them: a file as `finetune retrieve` reads it, or a "
            "folder of judged texts.",
            show_default=False,
        ),
    ],
    model: Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="OUT.jsonl", help="What to write.", show_default=False
        ),
    ],
    corpus: Annotated[
        str | None,
        typer.Option(
            help="More documents: a file with a column text.",
            show_default="those of the rows or of the folder",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Of the judgements of a folder.")] = "train",
    negatives: Annotated[int, typer.Option(help="The most for each row.")] = 4,
    skip: Annotated[int, typer.Option(help="How many of the nearest are left out.")] = 0,
    depth: Annotated[int, typer.Option(help="How many of the nearest are looked at.")] = 100,
    margin: Annotated[
        float, typer.Option(help="How far below the answer's score theirs must be.")
    ] = 0.0,
    ratio: Annotated[
        float | None,
        typer.Option(help="The same as a share of that score, such as 0.95.", show_default=False),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="A reranker, whose scores of each document are added for distillation.",
            show_default=False,
        ),
    ] = None,
    precision: PrecisionOption = Precision.AUTO,
    as_json: AsJson = False,
) -> None:
    """Find documents that a model takes for answers, and that are none.

    Writes rows of query, positive and negatives, which `finetune retrieve`, `late-interaction`
    and `rerank` read.
    """
    from modernbert.files import new_file
    from modernbert.inference.reranker import Reranker
    from modernbert.inference.retriever import load_retriever
    from modernbert.tasks.ranking.data import read_corpus, read_retrieval_data
    from modernbert.tasks.ranking.mining import MiningSettings
    from modernbert.tasks.ranking.mining import mine as find

    settings = MiningSettings(
        negatives=negatives, skip=skip, depth=depth, margin=margin, ratio=ratio
    )
    if output.exists():
        raise InputError(f"{output}: is there already; delete it or name another file")
    data = read_retrieval_data(rows, split)
    texts = read_corpus(rows, data, split, more=corpus)
    tell(f"{len(data.known):,} queries, {counted(len(texts), 'document')}")
    retriever = load_retriever(model, precision.value)
    scorer = None if teacher is None else Reranker.from_pretrained(teacher)
    written = total = 0
    output.parent.mkdir(parents=True, exist_ok=True)
    with Meter("embedding") as meter, warnings_told(), new_file(output) as file:
        found = find(retriever, data, texts, settings, teacher=scorer, on_progress=speed_of(meter))
        for row in found:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            written += 1
            total += len(row["negatives"])
        if not written:
            raise InputError("no negative is left: lower --margin and --skip, or raise --depth")
    if as_json:
        echo_json({"output": str(output), "rows": written, "negatives": total})
    else:
        typer.echo(f"{output}: {counted(written, 'row')} with {counted(total, 'negative')}")
