"""`modernbert finetune retrieve`, `late-interaction`, `rerank`: queries and what answers them."""

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modernbert.cli import finetune_options as options
from modernbert.cli.finetune_progress import Watch, scores_of
from modernbert.cli.options import AsJson, echo_json
from modernbert.cli.terminal import Meter, tell
from modernbert.errors import SettingsError

if TYPE_CHECKING:
    from modernbert.tasks.retrieval_examples import Kind
    from modernbert.tasks.retrieval_recipe import RetrievalRecipe

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
Epochs = Annotated[int | None, typer.Option(help="How often each row is seen.", show_default="1")]
Rate = Annotated[
    float | None,
    typer.Option(
        "--lr",
        help="Highest learning rate.",
        show_default="5e-5 for a width of 768, larger for smaller models",
    ),
]
Decay = Annotated[float | None, typer.Option(help="A step.", show_default="1e-06")]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Queries of a step, of any number: see docs.", show_default="32"),
]
MicroBatchTokens = Annotated[
    int | None,
    typer.Option(
        help="Tokens computed at once; more are computed twice.", show_default="by device"
    ),
]
Metric = Annotated[str | None, typer.Option(help="That chooses.", show_default="ndcg@10")]
Seed = Annotated[int | None, typer.Option(help="Of new weights and of order.", show_default="0")]


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
        train_split: Split = None,
        dev_split: Split = None,
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
        lr: Rate = None,
        weight_decay: Decay = None,
        batch_size: BatchSize = None,
        micro_batch_tokens: MicroBatchTokens = None,
        precision: options.PrecisionChoice = None,
        metric: Metric = None,
        patience: options.Patience = None,
        evaluations: options.Evaluations = None,
        seed: Seed = None,
        as_json: AsJson = False,
    ) -> None:
        settings = _recipe(
            kind,
            recipe,
            {"model": model, "output": output},
            data={
                "train": train,
                "dev": dev,
                "train_split": train_split,
                "dev_split": dev_split,
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
                "epochs": epochs,
                "learning_rate": lr,
                "weight_decay": weight_decay,
                "batch_size": batch_size,
                "micro_batch_tokens": micro_batch_tokens,
                "precision": precision and precision.value,
                "metric": metric,
                "patience": patience,
                "evaluations_per_epoch": evaluations,
                "seed": seed,
            },
        )
        _run(kind, settings, as_json=as_json)

    return command


def _recipe(
    kind: "Kind", recipe: Path | None, top: dict[str, Any], **tables: dict[str, Any]
) -> "RetrievalRecipe":
    from modernbert.settings import load_mapping, parse
    from modernbert.tasks.retrieval_recipe import RetrievalRecipe

    values = {} if recipe is None else load_mapping(recipe)
    values |= _given(top)
    for name, table in tables.items():
        if given := _given(table):
            values[name] = {**values.get(name, {}), **given}
    if "train" not in values.get("data", {}):
        raise SettingsError("--train: name the rows to learn from, such as --train train.jsonl")
    if "model" not in values:
        raise SettingsError("--model: name the model to begin with, a folder or an id of the hub")
    name = Path(values["data"]["train"]).name.split(".")[0]
    values.setdefault("output", f"runs/{kind}-{name}")
    return parse(RetrievalRecipe, values, where="options" if recipe is None else str(recipe))


def _run(kind: "Kind", recipe: "RetrievalRecipe", *, as_json: bool) -> None:
    from modernbert.tasks.retrieval_run import MODEL_FOLDER, open_ranking_job, train_ranking

    with Meter("reading") as meter:
        job = open_ranking_job(kind, recipe)
        for note in job.notes:
            tell(note)
        if recipe.data.dev is None:
            tell("note: no dev rows, so the last weights are kept and nothing is measured")
        watch = Watch(meter, num_runs=1)
        result, results = train_ranking(job, [lambda record: watch(kind, record)])
    if result.status == "interrupted":
        tell(f"stopped, all of it saved; go on with\n  modernbert {shlex.join(sys.argv[1:])}")
        raise typer.Exit(result.exit_code)
    model = recipe.output / MODEL_FOLDER
    if as_json:
        echo_json({"model": str(model), **results})
        return
    if results["dev"]:
        tell(f"dev   {scores_of(results['dev'])}")
    tell(f"best weights after step {results['best_step']:,} of {results['steps']:,}")
    typer.echo(model)


def _given(table: dict[str, Any]) -> dict[str, Any]:
    """What was said; paths as texts, as in a recipe."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in table.items()
        if value is not None and value != []
    }
