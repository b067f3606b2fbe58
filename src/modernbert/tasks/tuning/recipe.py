"""`TuningRecipe`: everything that decides a fine-tuning, whichever verb it belongs to.

    model = "runs/books/model"               # a folder, or a hub id
    output = "runs/reviews"                  # the result will be runs/reviews/model

    [data]
    train = "train.csv"
    dev = "dev.csv"

    [training]
    epochs = 3
    learning_rate = 5e-5

    [sweep]                                  # only for several runs
    seeds = [0, 1, 2]

    [computation]                            # only for several processes
    sharding = "full"

Each verb has a recipe of its own, with the data and the training settings that have an effect for
it: see `labels/recipe.py` and `ranking/recipe.py`. What is left out has the default of its class.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_type_hints

from annotated_types import Ge, Gt, Interval, MinLen

from modernbert.data.rows.table import Table, share_of
from modernbert.data.settings import FileSettings
from modernbert.errors import SettingsError
from modernbert.settings import Doc, OptimizerName, Settings, TuningPrecision, to_mapping
from modernbert.training.training_settings import (
    ComputationSettings,
    LogSettings,
    ScheduleSettings,
    TrainingSettings,
)


@dataclass(frozen=True, kw_only=True)
class RowSettings(FileSettings):
    """The rows to learn from, and how to read their files."""

    train: Annotated[
        str,
        Doc("Rows to learn from: CSV, TSV, JSON, Parquet, a saved dataset or one on the hub."),
    ]
    dev: Annotated[
        str | None,
        Doc(
            "Rows to evaluate on during training, which choose the best weights; or a share of the "
            "training rows to hold out for that, such as 10%."
        ),
    ] = None
    test: Annotated[str | None, Doc("Rows to score once, at the end.")] = None
    max_seqlen: Annotated[
        int | None, Doc("The longest sequence, in tokens.", default="the model's")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            share_of(self.dev)
        except SettingsError as error:
            raise SettingsError(f"dev: {error}") from None

    @property
    def dev_share(self) -> float | None:
        """The fraction of the training rows to hold out; None if dev rows are named."""
        return share_of(self.dev)

    @property
    def sources(self) -> dict[str, str]:
        """Return what to read for each split; no `dev` if a fraction of `train` is held out."""
        named = {"train": self.train, "dev": self.dev, "test": self.test}
        return {
            name: source
            for name, source in named.items()
            if source is not None and (name != "dev" or self.dev_share is None)
        }

    def require_columns(self, _head: Table) -> None:
        """Refuse rows that lack a column that was asked for, or all columns of the usual names.

        Raises:
            DocumentError: A column is missing; the message names the file and its columns.
        """


@dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """How to train, on labels or on rankings.

    Small models need a higher learning rate than large ones: at a width of 256, entities of
    CoNLL-2003 reached 0.78 with the default and 0.70 with a third of it.

    Attributes:
        former: Settings that earlier versions wrote for every verb, with or without an effect, and
            their defaults. A file may still contain them with these values, and they remain part of
            the identity of a run, so that a run that was started then can be continued.
    """

    former: ClassVar[Mapping[str, Any]] = {}

    epochs: Annotated[int, Interval(ge=1, le=10_000), Doc("How often each row is seen.")] = 3
    learning_rate: Annotated[
        float | None,
        Gt(0),
        Doc(
            "The highest learning rate.",
            default="5e-5 at a width of 768, higher for smaller models",
            flags=("--lr",),
        ),
    ] = None
    optimizer: Annotated[
        OptimizerName,
        Doc("`adamw`, `stable-adamw` or `muon`; all but `stable-adamw` clip gradients."),
    ] = "adamw"
    weight_decay: Annotated[
        float,
        Interval(ge=0, lt=1),
        Doc("Weight decay per step, at the highest learning rate."),
    ] = 1e-6
    warmup_fraction: Annotated[
        float,
        Interval(ge=0, lt=1),
        Doc("The fraction of the run with a rising rate; it then falls linearly to 0."),
    ] = 0.1
    batch_size: Annotated[int, Ge(1), Doc("Rows per step.")] = 32
    batch_tokens: Annotated[
        int | None, Ge(1), Doc("Tokens per step, instead of a number of rows.")
    ] = None
    micro_batch_tokens: Annotated[
        int | None,
        Ge(1),
        Doc("The most tokens computed at once; this affects only memory.", default="by device"),
    ] = None
    layer_decay: Annotated[
        float,
        Interval(gt=0, le=1),
        Doc("The learning rate of each layer, as a fraction of the rate of the layer above."),
    ] = 1.0
    freeze_embeddings: Annotated[bool, Doc("Leave the token embeddings as they are.")] = False
    freeze_layers: Annotated[
        int, Ge(0), Doc("Leave this many of the first layers as they are.")
    ] = 0
    precision: Annotated[
        TuningPrecision, Doc("The number format of the computation; weights stay float32.")
    ] = "auto"
    evaluations_per_epoch: Annotated[int, Ge(1), Doc("Evaluations on the dev rows per epoch.")] = 1
    patience: Annotated[
        int | None,
        Ge(1),
        Doc("Stop after this many evaluations without a better one.", default="never"),
    ] = None
    metric: Annotated[
        str | None, Doc("The score that chooses the best weights.", default="by verb")
    ] = None

    @classmethod
    def unfold(cls, mapping: Mapping[str, Any], _where: str) -> dict[str, Any]:
        """Remove former settings with their defaults from a mapping; see `modernbert.settings`."""
        known = {each.name for each in fields(cls)}
        return {
            name: value
            for name, value in mapping.items()
            if name in known or name not in cls.former or value != cls.former[name]
        }

    @property
    def identity(self) -> dict[str, Any]:
        """Return all values under the names of earlier versions, including former settings."""
        values = {**self.former, **to_mapping(self)}
        if self.optimizer == "adamw":  # the only one of earlier versions
            del values["optimizer"]
        return values

    def peak_rate(self, hidden_size: int) -> float:
        """Return the highest learning rate for a width; by default 5e-5 x (768 / width)^2."""
        if self.learning_rate is not None:
            return self.learning_rate
        return float(5e-5 * (768 / hidden_size) ** 2)

    def require_layers(self, num_layers: int) -> None:
        """Refuse to freeze more layers than a model has.

        Raises:
            SettingsError: There are fewer layers.
        """
        if self.freeze_layers > num_layers:
            raise SettingsError(
                f"freeze_layers: got {self.freeze_layers}, expected at most {num_layers}, "
                "the layers of the model"
            )


@dataclass(frozen=True, kw_only=True)
class SweepSettings(Settings):
    """Several runs: every combination of these values; an empty list means that of `training`.

    `seeds` decide the first weights of a new head and the order of the rows.

    Raises:
        SettingsError: A value occurs twice, or is out of its range.
    """

    seeds: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (0,)
    learning_rates: tuple[float, ...] = ()
    weight_decays: tuple[float, ...] = ()
    epochs: tuple[int, ...] = ()
    processes: Annotated[
        int | None, Ge(1), Doc("Runs to train at once.", default="one per core; 1 on a GPU")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("seeds", "learning_rates", "weight_decays", "epochs"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise SettingsError(f"{name}: a value occurs twice")


@dataclass(frozen=True)
class Verb:
    """One kind of fine-tuning.

    Attributes:
        summary: What it learns, in a sentence.
        recipe_class: The class of its recipe.
        opener: The function that opens a job from a recipe, as `module:name` of `modernbert.tasks`.
            It is imported on demand, because it imports torch.
    """

    summary: str
    recipe_class: "type[TuningRecipe]"
    opener: str

    @property
    def training_class(self) -> type[RunSettings]:
        """The class of the recipe's table `training`."""
        found: type[RunSettings] = get_type_hints(self.recipe_class)["training"]
        return found

    def open(self, recipe: "TuningRecipe") -> Any:
        """Read, check and encode everything that a recipe names.

        Returns:
            A `TuningJob`.

        Raises:
            ModernBertError: Something that the recipe names cannot be used.
        """
        module, _, name = self.opener.partition(":")
        return getattr(import_module(f"modernbert.tasks.{module}"), name)(recipe)


@dataclass(frozen=True, kw_only=True)
class TuningRun:
    """One training of a recipe."""

    seed: int
    training: RunSettings

    @property
    def name(self) -> str:
        """The name of the run's folder, unique within a recipe."""
        chosen = self.training
        rate = "default" if chosen.learning_rate is None else f"{chosen.learning_rate:g}"
        return f"lr-{rate}-wd-{chosen.weight_decay:g}-epochs-{chosen.epochs}-seed-{self.seed}"

    def trainer_settings(
        self, hidden_size: int, *, num_tokens: int, num_steps: int
    ) -> TrainingSettings:
        """Return the settings of the run, counted in tokens as the trainer counts.

        Args:
            hidden_size: The width of the model, by which the default learning rate is chosen.
            num_tokens: Of all epochs together.
            num_steps: Of all epochs together.
        """
        chosen = self.training
        warmup = int(chosen.warmup_fraction * num_tokens)
        steps_per_epoch = num_steps / chosen.epochs
        return TrainingSettings(
            total_tokens=num_tokens,
            schedule=ScheduleSettings(
                peak_learning_rate=chosen.peak_rate(hidden_size),
                warmup_tokens=warmup,
                decay="linear",
                decay_tokens=num_tokens - warmup,
                final_fraction=0.0,
            ),
            weight_decay=chosen.weight_decay,
            optimizer=chosen.optimizer,
            precision=chosen.precision,
            seed=self.seed,
            evaluate_every_steps=max(1, round(steps_per_epoch / chosen.evaluations_per_epoch)),
            keep_checkpoints=1,
        )


@dataclass(frozen=True, kw_only=True)
class TuningRecipe(Settings):
    """A fine-tuning.

    Attributes:
        computation: How several processes train together; you may change it when you continue a
            run.
        log: Where each run is logged to; you may change it too.
    """

    model: Annotated[
        str,
        Doc("Folder or hub id of the model to start from.", flags=("--model", "-m")),
    ]
    output: Annotated[
        Path,
        Doc("The folder for the results.", default="runs/VERB-TRAIN", flags=("--output", "-o")),
    ]
    data: RowSettings
    training: RunSettings = field(default_factory=RunSettings)
    sweep: SweepSettings = field(default_factory=SweepSettings)
    computation: ComputationSettings = field(default_factory=ComputationSettings)
    log: LogSettings = field(default_factory=LogSettings)

    def runs(self) -> list[TuningRun]:
        """Return all runs, with the seeds of one combination next to each other."""
        return runs_of(self.training, self.sweep)


def runs_of(base: RunSettings, sweep: SweepSettings) -> list[TuningRun]:
    """Return all runs, with the seeds of one combination next to each other."""
    settings = [
        replace(base, learning_rate=rate, weight_decay=decay, epochs=epochs)
        for rate, decay, epochs in product(
            sweep.learning_rates or (base.learning_rate,),
            sweep.weight_decays or (base.weight_decay,),
            sweep.epochs or (base.epochs,),
        )
    ]
    return [TuningRun(seed=seed, training=each) for each in settings for seed in sweep.seeds]
