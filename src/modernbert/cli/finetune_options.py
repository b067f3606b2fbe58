"""The options of `modernbert finetune`, and how they and a recipe become one."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from modernbert.errors import SettingsError

R = TypeVar("R")


class Pooling(StrEnum):
    """One vector of a text."""

    CLS = "cls"
    MEAN = "mean"


class ClassWeights(StrEnum):
    """How much each label counts."""

    EQUAL = "equal"
    BALANCED = "balanced"


class TrainingPrecision(StrEnum):
    """What a training is computed in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


RecipeFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RECIPE.toml]", help="What the options do not say.", show_default=False
    ),
]
StartModel = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Folder or hub id to begin with.", show_default=False),
]
Rows = Annotated[
    str | None,
    typer.Option(
        help="Rows to learn from: CSV, TSV, JSON Lines, Parquet, a saved data set or one of the "
        "hub.",
        show_default=False,
    ),
]
DevRows = Annotated[
    str | None,
    typer.Option(help="Rows that choose the best weights.", show_default=False),
]
TestRows = Annotated[
    str | None, typer.Option(help="Rows that are scored once, at the end.", show_default=False)
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder of the result.", show_default="runs/VERB-TRAIN"),
]
Text = Annotated[
    str | None,
    typer.Option(
        help="Column of the texts, words or questions.", show_default="found by usual names"
    ),
]
TextPair = Annotated[
    str | None,
    typer.Option(
        help="Column of the second texts, or of contexts.", show_default="found by usual names"
    ),
]
Label = Annotated[
    list[str] | None,
    typer.Option(
        help="Column of the labels, scores, tags or answers; several of 0 and 1 for any number of "
        "labels.",
        show_default="found by usual names",
    ),
]
LabelSeparator = Annotated[
    str | None, typer.Option(help="What stands between labels in one column.", show_default=False)
]
MaxSeqlen = Annotated[
    int | None, typer.Option(help="Longest sequence in tokens.", show_default="the model's")
]
EpochsOption = Annotated[
    list[int] | None,
    typer.Option(
        "--epochs", help="How often each row is seen; several: a sweep.", show_default="3"
    ),
]
Rates = Annotated[
    list[float] | None,
    typer.Option(
        "--lr",
        help="Highest learning rate; several: a sweep.",
        show_default="5e-5 for a width of 768, larger for smaller models",
    ),
]
Decays = Annotated[
    list[float] | None,
    typer.Option("--weight-decay", help="A step; several: a sweep.", show_default="1e-06"),
]
BatchSize = Annotated[int | None, typer.Option(help="Sequences of a step.", show_default="32")]
MicroBatchTokens = Annotated[
    int | None,
    typer.Option(help="Tokens computed at once; changes memory alone.", show_default="by device"),
]
BatchTokensOption = Annotated[
    int | None, typer.Option("--batch-tokens", help="Tokens of a step instead.", show_default=False)
]
LayerDecay = Annotated[
    float | None,
    typer.Option(help="Each layer's rate over that of the layer above.", show_default="1"),
]
FreezeEmbeddings = Annotated[
    bool, typer.Option("--freeze-embeddings", help="Leave token embeddings as they are.")
]
FreezeLayers = Annotated[
    int | None,
    typer.Option(help="Leave so many of the first layers as they are.", show_default="0"),
]
Stride = Annotated[
    int | None,
    typer.Option(
        help="Tokens that neighbouring windows of a long context share, for answers.",
        show_default="128 or a quarter of a window",
    ),
]
PoolingOption = Annotated[
    Pooling | None, typer.Option("--pooling", help="One vector of a text.", show_default="mean")
]
ClassWeightsOption = Annotated[
    ClassWeights | None,
    typer.Option("--class-weights", help="balanced: labels count alike.", show_default="equal"),
]
FewShot = Annotated[
    bool, typer.Option("--few-shot", help="Learn one label a text from a handful of rows.")
]
PrecisionChoice = Annotated[
    TrainingPrecision | None,
    typer.Option("--precision", help="What to compute in.", show_default="auto"),
]
Metric = Annotated[str | None, typer.Option(help="The score that chooses.", show_default="by verb")]
Patience = Annotated[
    int | None,
    typer.Option(help="Evaluations without a better one before it ends.", show_default="never"),
]
Evaluations = Annotated[
    int | None, typer.Option("--evaluations-per-epoch", help="On dev rows.", show_default="1")
]
Seeds = Annotated[
    int | None, typer.Option(min=1, help="So many runs with seeds 0, 1, ...", show_default="1")
]
Processes = Annotated[int | None, typer.Option(help="Runs at once.", show_default="by cores")]


def recipe_of(
    recipe_class: type[R], verb: str, recipe: Path | None, top: dict[str, Any], **tables: Any
) -> R:
    """A recipe file, if any, with the options over it; what is None was not given.

    Raises:
        SettingsError: something is missing, or out of its range.
    """
    from modernbert.settings import load_mapping, parse

    values = {} if recipe is None else load_mapping(recipe)
    values |= _given(top)
    for name, table in tables.items():
        if given := _given(table):
            values[name] = {**values.get(name, {}), **given}
    if "output" not in values and (train := values.get("data", {}).get("train")):
        values["output"] = f"runs/{verb}-{Path(train).name.split('.')[0]}"
    if "model" not in values:
        raise SettingsError("--model: name the model to begin with, a folder or an id of the hub")
    if "train" not in values.get("data", {}):
        raise SettingsError("--train: name the rows to learn from, such as --train train.csv")
    return parse(recipe_class, values, where="options" if recipe is None else str(recipe))


def sweep_of(
    epochs: list[int] | None,
    lr: list[float] | None,
    weight_decay: list[float] | None,
    seeds: int | None,
    processes: int | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What of these options goes into `training`, and what, where one is repeated, into `sweep`."""
    training: dict[str, Any] = {}
    sweep: dict[str, Any] = {
        "seeds": None if seeds is None else list(range(seeds)),
        "processes": processes,
    }
    given: dict[str, tuple[str, list[Any] | None]] = {
        "epochs": ("epochs", epochs),
        "learning_rate": ("learning_rates", lr),
        "weight_decay": ("weight_decays", weight_decay),
    }
    for name, (names, values) in given.items():
        if values and len(values) == 1:
            training[name] = values[0]
        elif values:
            sweep[names] = list(values)
    return training, sweep


def _given(table: dict[str, Any]) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in table.items()
        if value is not None and value != []
    }
