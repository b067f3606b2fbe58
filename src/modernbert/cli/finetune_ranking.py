"""`modernbert finetune retrieve`, `late-interaction`, `rerank`: queries and what answers them."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modernbert.cli import finetune_options as options
from modernbert.cli.finetune_progress import report, tell_of_ranking
from modernbert.cli.options import AsJson

if TYPE_CHECKING:
    from modernbert.tasks.ranking.examples import Kind

_SUMMARIES: "dict[Kind, str]" = {
    "retrieve": "Learn one vector a text, so that queries lie near the documents that answer them.",
    "late-interaction": "Learn one vector a token (ColBERT), compared by MaxSim.",
    "rerank": "Learn to score a query and a document that are read together.",
}
_EPILOG = (
    "Rows have the columns query, positive and perhaps negative, negative_1, ..., negatives and "
    "scores; or query, document and label. A folder of corpus, queries and qrels will do as well. "
    "The model's folder goes to stdout, the progress to stderr. Stopped at any moment, it goes on "
    "where it was when the same command is run again."
)


class LossOption(StrEnum):
    """What is minimised."""

    IN_BATCH = "in-batch"
    MARGIN = "margin"
    KL = "kl"
    BINARY = "binary"


Rows = Annotated[
    str | None,
    typer.Option(
        help="Rows to learn from: JSON Lines, CSV, TSV, Parquet, a saved data set or one of the "
        "hub; or a folder of judged texts.",
        show_default=False,
    ),
]
DevRows = Annotated[
    str | None, typer.Option(help="The same; they choose the best weights.", show_default=False)
]
TestRows = Annotated[
    str | None,
    typer.Option(help="The same; they are scored once, at the end.", show_default=False),
]
Split = Annotated[str | None, typer.Option(help="Of the judgements of a folder.")]
Negatives = Annotated[
    int | None,
    typer.Option("--negatives", help="The most that are taken of a row.", show_default="all"),
]
QueryMaxSeqlen = Annotated[
    int | None, typer.Option(help="Longest query in tokens.", show_default="as documents")
]
Loss = Annotated[
    LossOption | None,
    typer.Option(
        help="in-batch, margin or kl; binary, margin or kl to rerank.",
        show_default="margin where the rows have scores, in-batch or binary else",
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(help="Similarities are multiplied by it.", show_default="20 for retrieve, else 1"),
]
Matryoshka = Annotated[
    list[int] | None,
    typer.Option(
        "--matryoshka",
        help="So many numbers of a vector should do by themselves; may be repeated.",
        show_default=False,
    ),
]
QueryPrompt = Annotated[
    str | None, typer.Option(help="Before each query.", show_default="by model")
]
DocumentPrompt = Annotated[
    str | None, typer.Option(help="Before each document.", show_default="by model")
]
Dim = Annotated[
    int | None,
    typer.Option(help="Numbers of a vector of a new late-interaction model.", show_default="128"),
]
SkipPunctuation = Annotated[
    bool,
    typer.Option(
        "--skip-punctuation", help="A new late-interaction model leaves it out of documents."
    ),
]
Epochs = Annotated[
    list[int] | None,
    typer.Option(
        "--epochs", help="How often each row is seen; several: a sweep.", show_default="1"
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Queries of a step, of any number: see docs.", show_default="32"),
]
BatchTokens = Annotated[
    int | None,
    typer.Option(help="Tokens of a step, queries with documents, instead.", show_default=False),
]
Metric = Annotated[str | None, typer.Option(help="That chooses.", show_default="ndcg@10")]


def add_verbs(app: typer.Typer) -> None:
    """Add the three verbs to the group."""
    for kind, summary in _SUMMARIES.items():
        app.command(name=kind, help=f"{summary}\n\n{_EPILOG}")(_command(kind))


def _command(kind: "Kind") -> Any:
    def command(
        recipe: options.RecipeFile = None,
        model: options.StartModel = None,
        train: Rows = None,
        dev: DevRows = None,
        test: TestRows = None,
        train_split: Split = None,
        dev_split: Split = None,
        test_split: Split = None,
        output: options.Output = None,
        negatives: Negatives = None,
        max_seqlen: options.MaxSeqlen = None,
        query_max_seqlen: QueryMaxSeqlen = None,
        loss: Loss = None,
        scale: Scale = None,
        matryoshka: Matryoshka = None,
        query_prompt: QueryPrompt = None,
        document_prompt: DocumentPrompt = None,
        pooling: options.PoolingOption = None,
        dim: Dim = None,
        skip_punctuation: SkipPunctuation = False,
        epochs: Epochs = None,
        lr: options.Rates = None,
        weight_decay: options.Decays = None,
        batch_size: BatchSize = None,
        batch_tokens: BatchTokens = None,
        micro_batch_tokens: options.MicroBatchTokens = None,
        layer_decay: options.LayerDecay = None,
        freeze_embeddings: options.FreezeEmbeddings = False,
        freeze_layers: options.FreezeLayers = None,
        precision: options.PrecisionChoice = None,
        metric: Metric = None,
        patience: options.Patience = None,
        evaluations: options.Evaluations = None,
        seeds: options.Seeds = None,
        processes: options.Processes = None,
        as_json: AsJson = False,
    ) -> None:
        from modernbert.tasks.ranking.recipe import RetrievalRecipe
        from modernbert.tasks.ranking.runs import train_ranking

        each, several = options.sweep_of(epochs, lr, weight_decay, seeds, processes)
        settings = options.recipe_of(
            RetrievalRecipe,
            kind,
            recipe,
            {"model": model, "output": output},
            data={
                "train": train,
                "dev": dev,
                "test": test,
                "train_split": train_split,
                "dev_split": dev_split,
                "test_split": test_split,
                "num_negatives": negatives,
                "max_seqlen": max_seqlen,
                "query_max_seqlen": query_max_seqlen,
            },
            training={
                "loss": loss and loss.value,
                "scale": scale,
                "matryoshka_dims": matryoshka,
                "query_prompt": query_prompt,
                "document_prompt": document_prompt,
                "pooling": pooling and pooling.value,
                "dim": dim,
                "skip_punctuation": skip_punctuation or None,
                "batch_size": batch_size,
                "batch_tokens": batch_tokens,
                "layer_decay": layer_decay,
                "freeze_embeddings": freeze_embeddings or None,
                "freeze_layers": freeze_layers,
                "micro_batch_tokens": micro_batch_tokens,
                "precision": precision and precision.value,
                "metric": metric,
                "patience": patience,
                "evaluations_per_epoch": evaluations,
                **each,
            },
            sweep=several,
        )
        report(
            settings,
            lambda watch: train_ranking(kind, settings, on_job=tell_of_ranking, on_record=watch),
            as_json=as_json,
        )

    return command
