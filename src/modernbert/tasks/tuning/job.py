"""`TuningJob`: a fine-tuning with its data, read, checked and encoded; `Objective`: what it learns.

A verb of `modernbert finetune` is a recipe and a function that opens a job from it. Runs, sweeps,
results, the page, the card and the command line work with jobs and know no verb by name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from modernbert.metrics.calibration import CalibrationBin
from modernbert.metrics.classification import LabelFigures
from modernbert.model.config import EncoderConfig
from modernbert.tasks.tuning.recipe import TuningRecipe
from modernbert.training.distributed import Group

HeldOutSplit = Literal["dev", "test"]


@dataclass(frozen=True, kw_only=True)
class Review:
    """A detailed look at a model's predictions, for the page.

    Attributes:
        labels: The figures of each label.
        confusion: For the rows of each label, how many got which label; None if that is
            meaningless or too large to look at.
        calibration: How often predictions are right, by their confidence.
        columns: The names of the columns of `mistakes` and `right`.
        mistakes: What the model gets wrong, or is least sure of, the worst first.
        right: A few rows that it gets right, or is nearest to.
    """

    labels: Sequence[LabelFigures] = ()
    confusion: Sequence[Sequence[int]] | None = None
    calibration: Sequence[CalibrationBin] = ()
    columns: Sequence[str] = ()
    mistakes: Sequence[Sequence[object]] = ()
    right: Sequence[Sequence[object]] = ()


class Objective(Protocol):
    """What a module learns from which rows, and how good it is.

    Rows are identified by their number among the training rows. With several processes, each has
    all rows and calls the same methods in the same order.

    Attributes:
        metric: The score that chooses the weights; higher is better, unless it is `loss`.
        lengths: The number of tokens of each row.
        whole_steps: Whether all rows of a step enter one loss, as with in-batch negatives. The
            objective then receives the whole step in every process and divides its work itself.
            Otherwise it receives packs of this process's rows.
    """

    @property
    def metric(self) -> str: ...

    @property
    def lengths(self) -> Sequence[int]: ...

    @property
    def whole_steps(self) -> bool: ...

    def num_targets(self, row: int) -> int:
        """Return a row's number of targets; the loss of a step is the mean over all its targets."""

    def loss(self, module: nn.Module, rows: Sequence[int], group: Group, done: float, /) -> Tensor:
        """Return the SUM of the losses of this process's targets among the rows.

        Args:
            module: The model in training, as `Trainer` wraps it.
            rows: The numbers of the rows.
            group: The processes that compute together.
            done: The fraction of the run that is done after this step, from 0 to 1.
        """

    def evaluate(self, module: nn.Module, split: HeldOutSplit, group: Group) -> dict[str, float]:
        """Compute scores on held-out rows, the same in each process; empty without such rows."""

    def review(self, module: nn.Module, split: HeldOutSplit, group: Group) -> Review:
        """Look at the predictions for held-out rows in detail."""


@dataclass(frozen=True, kw_only=True)
class ModelUse:
    """What the card of a model says about using it.

    Attributes:
        library: The library that the hub names for it.
        pipeline: The hub's name for its purpose, such as `text-classification`.
        gives: What the model computes, as in "A ModernBERT that gives ...".
        example: Lines of Python that use it.
        also: Which other libraries load the folder, in a sentence.
    """

    library: str
    pipeline: str
    gives: str
    example: str
    also: str


@dataclass(frozen=True, kw_only=True)
class RowMixture:
    """Rows of several sources; see `Epochs` for what follows from it.

    Attributes:
        sources: The number of the source of each row, from 0.
        weights: How often a row of each source is seen in an epoch.
    """

    sources: Sequence[int]
    weights: Sequence[float]


def _as_it_is(module: nn.Module, _group: Group) -> nn.Module:
    """Keep a trained module as it is, unless a job says otherwise."""
    return module


@dataclass(frozen=True, kw_only=True)
class TuningJob:
    """One fine-tuning on given data, from a given model, for any number of runs.

    Attributes:
        verb: The name of the verb on the command line.
        recipe: The recipe, including everything that the data had to decide.
        config: The config of the encoder.
        first: Makes the module before its first step, from a seed.
        load: Loads a module from a folder that `save` has written.
        save: Writes the folder of a module, with everything that is needed to use it.
        finish: Turns a trained module into the one that is kept; all processes call it.
        kept: If `finish` makes another kind of module, makes one of that kind from a seed.
        use: What the card says about using the model.
        splits: The source and the size of each split, by its name.
        fingerprint: The sha256 (hex) of everything that is learned from or evaluated on.
        phase: The name of the trainer's phase.
        notes: What you should know about the data, one line each.
        facts: More about the data, by name.
        mixture: The sources of the rows, if there are several.
    plain: The scores of a model without pretraining on each held-out split, for comparison.
    """

    verb: str
    recipe: TuningRecipe
    config: EncoderConfig
    objective: Objective
    first: Callable[[int], nn.Module]
    load: Callable[[Path], nn.Module]
    save: Callable[[nn.Module, Path], None]
    use: ModelUse
    splits: Mapping[str, str]
    fingerprint: str
    finish: Callable[[nn.Module, Group], nn.Module] = _as_it_is
    kept: Callable[[int], nn.Module] | None = None
    phase: str = "fine-tuning"
    notes: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    mixture: RowMixture | None = None
    plain: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def beside_plain(self, split: str, scores: Mapping[str, float]) -> str:
        """The score of the plain model beside that of the trained one; empty without either."""
        plain = self.plain.get(split, {}).get(self.metric)
        if plain is None or self.metric not in scores:
            return ""
        score = scores[self.metric]
        told = (
            f"TF-IDF of words with logistic regression reaches {self.metric} {plain:.4f} on the "
            f"{split} rows, this model {score:.4f}"
        )
        better = "; the plain model is better: take that one, or give more rows"
        return told + (better if plain > score else "")

    @property
    def metric(self) -> str:
        """The score that chooses the best weights."""
        return self.recipe.training.metric or self.objective.metric
