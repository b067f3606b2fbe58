"""`TuningJob`: a fine-tuning with its data read, checked and encoded; `Objective`: what it learns.

A verb of `modernbert finetune` is a recipe and a function that opens a job from it. Runs, sweeps,
results, the page, the card and the command line know jobs, and no verb by its name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from modernbert.metrics.classification import LabelFigures
from modernbert.model.config import EncoderConfig
from modernbert.tasks.tuning.recipe import TuningRecipe
from modernbert.training.distributed import Group

HeldOutSplit = Literal["dev", "test"]


@dataclass(frozen=True, kw_only=True)
class Review:
    """A closer look at a model's predictions, for the page.

    Attributes:
        labels: The figures of each label.
        confusion: For the rows of each label, how many got which label; None where that says
            nothing.
        columns: What the columns of `mistakes` are.
        mistakes: What the model is wrong about, or least sure of; the worst first.
    """

    labels: Sequence[LabelFigures] = ()
    confusion: Sequence[Sequence[int]] | None = None
    columns: Sequence[str] = ()
    mistakes: Sequence[Sequence[object]] = ()


class Objective(Protocol):
    """What a module learns from which rows, and how good it is at it.

    Rows are counted by their number in the rows to learn from. Where several processes train
    together, each of them has all rows and calls the same methods in the same order.

    metric: The score by which weights are chosen; higher is better, unless it is `loss`.
    lengths: The tokens of each row.
    whole_steps: Whether all rows of a step meet in one loss, as with negatives in the batch. The
        objective is then given the whole step in every process and shares its work out by itself.
        Otherwise it is given packs of this process's rows.
    """

    @property
    def metric(self) -> str: ...

    @property
    def lengths(self) -> Sequence[int]: ...

    @property
    def whole_steps(self) -> bool: ...

    def num_targets(self, row: int) -> int:
        """How many targets a row has; the loss of a step is the mean over all of its targets."""

    def loss(self, module: nn.Module, rows: Sequence[int], group: Group, done: float, /) -> Tensor:
        """The SUM of the losses of this process's targets among the rows.

        Args:
            module: The module.
            rows: The rows.
            group: The processes that compute together.
            done: How much of the run is done with this step, from 0 to 1.
        """

    def evaluate(self, module: nn.Module, split: HeldOutSplit, group: Group) -> dict[str, float]:
        """Scores on held-out rows; empty without such rows. Each process gets the same ones."""

    def review(self, module: nn.Module, split: HeldOutSplit, group: Group) -> Review:
        """A closer look at the predictions for held-out rows."""


@dataclass(frozen=True, kw_only=True)
class ModelUse:
    """How the card of a model describes what it is for.

    Attributes:
        library: The library that the hub names for it.
        pipeline: The hub's name of its purpose, such as `text-classification`.
        gives: What the model gives, as in "A ModernBERT that gives ...".
        example: Python lines that use it.
        also: Who else loads the folder, in a sentence.
    """

    library: str
    pipeline: str
    gives: str
    example: str
    also: str


def _as_it_is(module: nn.Module, _group: Group) -> nn.Module:
    """What becomes of a trained module unless a job says otherwise."""
    return module


@dataclass(frozen=True, kw_only=True)
class TuningJob:
    """One fine-tuning on given data, from a given model, for any number of runs.

    Attributes:
        verb: Its name on the command line.
        recipe: With all that was left to be chosen by the data.
        config: Of the encoder.
        first: The module before its first step, from a seed.
        load: A module from a folder that `save` has written.
        save: Writes the folder of a module, with everything that is needed to use it.
        finish: Makes of a trained module the one that is kept; all processes call it.
        kept: Where `finish` makes another kind of module, one of that kind from a seed.
        use: What the card says about using it.
        splits: The source and the size of each split, by its name.
        fingerprint: The sha256 (hex) of all that is learnt from or evaluated on.
        phase: The name of the trainer's phase.
        notes: What a user should know about the data, a line each.
        facts: More about the data, by name.
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

    @property
    def metric(self) -> str:
        """The score that chooses the best weights."""
        return self.recipe.training.metric or self.objective.metric
