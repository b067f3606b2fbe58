"""`FineTuningRecipe`: all that decides a fine-tuning, as a TOML file or as flags.

    model = "runs/books/model"               # or an id of the hub
    output = "runs/reviews"                  # the result will be runs/reviews/model

    [data]
    train = "train.csv"
    dev = "dev.csv"

    [training]
    epochs = 3
    learning_rate = 5e-5

    [sweep]                                  # only for several runs
    seeds = [0, 1, 2]

Whatever is left out has the value that stands in the class.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modernbert.errors import SettingsError
from modernbert.model.pooling import Pooling
from modernbert.tasks.tuning.run_settings import Run, RunSettings, SweepSettings, runs_of

__all__ = ["DataSettings", "FineTuningRecipe", "FineTuningSettings", "SweepSettings"]

ClassWeights = Literal["equal", "balanced"]


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which rows to learn from, and which of their columns.

    train: a file, a saved data set or an id of the hub; see `data.rows.tables`.
    dev: rows to evaluate on while training; they choose the weights that are kept.
    test: rows that are scored once, at the end.
    text: the column of the texts; of the words for tags, of the questions for answers.
    text_pair: of the second texts, where there are two; of the contexts for answers.
    label: of the labels, scores, tags or answers; several columns of 0 and 1 are labels of which
        a text may have any number.
    label_separator: what stands between labels in one column of them, such as "|".
    max_seqlen: the longest sequence in tokens; what the model reads when None.
    stride: how many tokens of a long context two neighbouring windows share, for answers; 128
        when None, or a quarter of a window.

    Raises:
        SettingsError: a number out of its range.
    """

    train: str
    dev: str | None = None
    test: str | None = None
    text: str | None = None
    text_pair: str | None = None
    label: tuple[str, ...] = ()
    label_separator: str | None = None
    max_seqlen: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.stride is not None and self.stride < 0:
            raise SettingsError(f"stride: got {self.stride}, expected 0 or more")
        if self.label_separator == "":
            raise SettingsError("label_separator: got nothing, expected a text such as '|'")


@dataclass(frozen=True, kw_only=True)
class FineTuningSettings(RunSettings):
    """How to train; see `RunSettings` for the rest.

    pooling: of texts, for labels and numbers: the first token or the mean of all.
    class_weights: `balanced` lets each label count alike, however rare it is.
    few_shot: whether to learn from a handful of rows: see `few_shot`.
    metric: by which the best weights are chosen; the task's own when None.

    Raises:
        SettingsError: a number out of its range.
    """

    pooling: Pooling = "mean"
    class_weights: ClassWeights = "equal"
    few_shot: bool = False
    metric: str | None = None


@dataclass(frozen=True, kw_only=True)
class FineTuningRecipe:
    """A fine-tuning.

    model: folder or hub id of the model to begin with.
    output: the folder of all that comes of it.
    """

    model: str
    output: Path
    data: DataSettings
    training: FineTuningSettings = field(default_factory=FineTuningSettings)
    sweep: SweepSettings = field(default_factory=SweepSettings)

    def runs(self) -> list[Run[FineTuningSettings]]:
        """All runs, the seeds of one combination beside each other."""
        return runs_of(self.training, self.sweep)
