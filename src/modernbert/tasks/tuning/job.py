"""`TuningJob`: a fine-tuning with its data; `Objective`: what it learns; `Results`: how it ended.

A verb of `modernbert finetune` is a recipe and a function that opens a job from it. Runs, sweeps,
the page, the card and the command line work with these values and know no verb by name.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from modernbert.display import Shown, Table, scores_table
from modernbert.errors import RunError
from modernbert.files import write_whole
from modernbert.inference.loading import longest_sequence, require_same_vocabulary
from modernbert.json_files import read_settings
from modernbert.metrics.calibration import CalibrationBin
from modernbert.metrics.classification import LabelFigures
from modernbert.model.config import EncoderConfig
from modernbert.tasks.tuning.recipe import TuningRecipe
from modernbert.tokenizer.tokenizer import Tokenizer
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
        plain: Computes the scores of a model without pretraining on each held-out split.
        plain_name: What that model is.
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
    plain: Callable[[], Mapping[str, Mapping[str, float]]] = dict
    plain_name: str = "TF-IDF of words with logistic regression"

    def beside_plain(self, scores: Mapping[str, Mapping[str, float]]) -> list[str]:
        """Compare the scores of the trained model on each split with the plain model's, in lines.

        Args:
            scores: The trained model's scores by split and name.
        """
        told = []
        for split, plain in self.plain().items():
            if self.metric in plain and self.metric in scores[split]:
                theirs, ours = plain[self.metric], scores[split][self.metric]
                better = "; the plain model is better: take that one, or give more rows"
                told.append(
                    f"{self.plain_name} reaches {self.metric} {theirs:.4f} on the {split} rows, "
                    f"this model {ours:.4f}" + (better if theirs > ours else "")
                )
        return told

    @property
    def metric(self) -> str:
        """The score that chooses the best weights."""
        return self.recipe.training.metric or self.objective.metric


def opened_model(recipe: TuningRecipe) -> tuple[EncoderConfig, Tokenizer, int]:
    """Read the config and the tokenizer of the model that a recipe starts from.

    Returns:
        The config, the tokenizer, and the longest sequence, in tokens.

    Raises:
        ModelFolderError: There is no such model.
        TokenizerError: The model has no tokenizer.
        InputError: The tokenizer has another vocabulary, or the model cannot read that length.
        SettingsError: The model has fewer layers than should be frozen.
    """
    config = EncoderConfig.from_pretrained(recipe.model)
    recipe.training.require_layers(config.num_layers)
    tokenizer = Tokenizer.from_pretrained(recipe.model)
    require_same_vocabulary(config, tokenizer)
    return config, tokenizer, longest_sequence(config, tokenizer, recipe.data.max_seqlen)


OUTCOME_FILE = "outcome.json"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        name: The name of the run.
        best_step: The step after which the weights were kept.
        seconds: The time of training and evaluation, without pauses.
        dev: The scores of these weights on the dev rows; empty without such rows.
        test: The same on the test rows.
    """

    name: str
    seed: int
    learning_rate: float
    weight_decay: float
    epochs: int
    steps: int
    tokens: int
    best_step: int
    seconds: float
    dev: Mapping[str, float]
    test: Mapping[str, float]


def read_outcome(folder: Path) -> Outcome | None:
    """Read the outcome of a finished run; None if it is not finished.

    Raises:
        RunError: The file is not an outcome.
    """
    path = folder / OUTCOME_FILE
    if not path.exists():
        return None
    try:
        return read_settings(Outcome, path, error=RunError)
    except RunError as error:
        raise RunError(f"{error}; delete it, as it is not the outcome of a run") from None


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write what `read_outcome` reads."""
    write_whole(folder / OUTCOME_FILE, json.dumps(asdict(outcome), indent=1).encode() + b"\n")


def goodness(scores: Mapping[str, float], metric: str) -> float:
    """Return the score of a metric, negated for `loss`, so that more is better; or the least."""
    score = scores.get(metric, -math.inf)
    return -score if metric == "loss" else score


@dataclass(frozen=True, kw_only=True)
class Combination:
    """The runs that differ only in their seeds."""

    learning_rate: float
    weight_decay: float
    epochs: int
    outcomes: Sequence[Outcome]

    def mean(self, split: str) -> dict[str, float]:
        """Return the mean of each score of `dev` or `test`."""
        return {name: mean(values) for name, values in self._values(split).items()}

    def spread(self, split: str) -> dict[str, float]:
        """Return the standard deviation of each score over the seeds; 0 for a single seed."""
        return {
            name: stdev(values) if len(values) > 1 else 0.0
            for name, values in self._values(split).items()
        }

    def _values(self, split: str) -> dict[str, list[float]]:
        scores: list[Mapping[str, float]] = [getattr(each, split) for each in self.outcomes]
        return {name: [each[name] for each in scores] for name in scores[0]}


@dataclass(frozen=True, kw_only=True, repr=False)
class Results(Shown):
    """All runs of a recipe.

    Attributes:
        metric: The score that chooses the best run.
        notes: The notes about the data; see `TuningJob`.
        comparisons: The best run's scores beside those of a plain model, a line each.
        facts: More about the data; see `TuningJob`.
        model: The folder of the best model.
    """

    verb: str
    metric: str
    combinations: Sequence[Combination]
    notes: Sequence[str]
    facts: Mapping[str, Any]
    comparisons: Sequence[str] = ()
    model: Path | None = None

    @classmethod
    def of(cls, job: TuningJob, outcomes: Sequence[Outcome], model: Path) -> "Results":
        """Group the outcomes of a job's runs by everything but their seeds."""
        groups: dict[tuple[float, float, int], list[Outcome]] = {}
        for outcome in outcomes:
            key = outcome.learning_rate, outcome.weight_decay, outcome.epochs
            groups.setdefault(key, []).append(outcome)
        results = cls(
            verb=job.verb,
            metric=job.metric,
            combinations=[
                Combination(learning_rate=rate, weight_decay=decay, epochs=epochs, outcomes=group)
                for (rate, decay, epochs), group in groups.items()
            ],
            notes=job.notes,
            facts=job.facts,
            model=model,
        )
        best = {"dev": results.best.dev, "test": results.best.test}
        return replace(results, comparisons=job.beside_plain(best))

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for each in self.combinations for outcome in each.outcomes]

    @property
    def best_combination(self) -> Combination:
        """The combination with the best mean over its seeds; of equal ones, the first."""
        return max(self.combinations, key=lambda each: goodness(each.mean("dev"), self.metric))

    @property
    def best(self) -> Outcome:
        """The best seed of the best combination."""
        return max(self.best_combination.outcomes, key=lambda each: goodness(each.dev, self.metric))

    def table(self) -> Table:
        """Return the scores of each combination, or of the only run on each split."""
        notes = [*self.comparisons, *([] if self.model is None else [f"model: {self.model}"])]
        if len(self.outcomes) == 1:
            splits = {split: getattr(self.best, split) for split in ("dev", "test")}
            return scores_table({k: v for k, v in splits.items() if v}, "split", notes)
        rows = [
            (f"{each.learning_rate:g}", f"{each.weight_decay:g}", each.epochs, split, *scores)
            for each in self.combinations
            for split in ("dev", "test")
            if (scores := self._shown_scores(each, split))
        ]
        header = ("learning rate", "weight decay", "epochs", "split", self.metric, "seeds")
        return Table(header, rows, notes)

    def _shown_scores(self, each: Combination, split: str) -> tuple[object, ...]:
        if not getattr(each.outcomes[0], split):
            return ()
        mean, spread = each.mean(split)[self.metric], each.spread(split)[self.metric]
        return f"{mean:.4f} ± {spread:.4f}", len(each.outcomes)

    def to_mapping(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "verb": self.verb,
            "metric": self.metric,
            "best": asdict(self.best),
            "combinations": [
                {
                    "learning_rate": each.learning_rate,
                    "weight_decay": each.weight_decay,
                    "epochs": each.epochs,
                    "seeds": [outcome.seed for outcome in each.outcomes],
                    **{
                        split: {"mean": each.mean(split), "spread": each.spread(split)}
                        for split in ("dev", "test")
                        if getattr(each.outcomes[0], split)
                    },
                }
                for each in self.combinations
            ],
            "runs": [asdict(outcome) for outcome in self.outcomes],
            "notes": [*self.notes, *self.comparisons],
            "data": dict(self.facts),
        }
