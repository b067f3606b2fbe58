"""`modernbert mine`: finds hard negatives for training a retriever."""

from pathlib import Path
from typing import Annotated

import typer

from modernbert.cli.inference_options import (
    Model,
    PrecisionName,
    PrecisionOption,
    look_at,
    speed_of,
    warnings_told,
)
from modernbert.cli.job import kept_when_stopped, require_unfinished
from modernbert.cli.options import AsJson, echo_json, takes_settings
from modernbert.cli.terminal import Meter, counted, tell
from modernbert.tasks.ranking.recipe import MiningSettings


@takes_settings
def mine(
    rows: Annotated[
        str,
        typer.Argument(
            metavar="ROWS",
            help="Queries with documents that answer them: a file as `finetune retrieve` reads "
            "it, or a BEIR folder.",
            show_default=False,
        ),
    ],
    model: Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="OUT.jsonl", help="The file to write.", show_default=False
        ),
    ],
    settings: MiningSettings,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="More documents to search: a file with a column text.",
            show_default="those of ROWS alone",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="The split of a BEIR folder to take queries from.")
    ] = "train",
    teacher: Annotated[
        str | None,
        typer.Option(
            help="A reranker whose scores are added to each row, for distillation.",
            show_default=False,
        ),
    ] = None,
    precision: PrecisionOption = PrecisionName.AUTO,
    as_json: AsJson = False,
) -> None:
    """Find hard negatives for training a retriever.

    These are documents that the model, or BM25 with --by bm25, wrongly ranks among the answers. The
    output has rows of query, positive and negatives, which `finetune retrieve`, `finetune
    late-interaction` and `finetune rerank` read.
    """
    look_at(model)
    from modernbert.cli.mining_job import MiningJob, description_of
    from modernbert.tasks.ranking.data import read_corpus, read_retrieval_data

    require_unfinished(output)
    data = read_retrieval_data(rows, split)
    texts = read_corpus(rows, data, split, more=corpus)
    from modernbert.inference.reranker import Reranker
    from modernbert.inference.retriever import load_retriever
    from modernbert.tasks.ranking.mining import rows_of_examples

    tell(f"{len(data.known):,} queries, {counted(len(texts), 'document')}")
    retriever = load_retriever(model, precision.value)
    scorer = None if teacher is None else Reranker.from_pretrained(teacher)
    description = description_of(data, texts, settings, model, teacher, precision.value)
    job = MiningJob(output, description)
    with Meter("embedding") as meter, warnings_told(), kept_when_stopped(job), job:
        if not job.is_complete:
            found = rows_of_examples(
                job.vectors_of(retriever, speed_of(meter)),
                data,
                texts,
                settings,
                teacher=scorer,
                first=job.num_done,
            )
            meter.restart("mining")
            for row in found:
                job.add_row(row)
                meter.update(job.num_done, len(data.examples), counted(job.num_done, "query"))
        job.finish()
    if as_json:
        echo_json({"output": str(output), "rows": job.num_rows, "negatives": job.num_negatives})
    else:
        negatives = counted(job.num_negatives, "negative")
        typer.echo(f"{output}: {counted(job.num_rows, 'row')} with {negatives}")
