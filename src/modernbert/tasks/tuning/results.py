"""How a run ended, and the results of all runs: which is best, and how far seeds spread."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from modernbert.display import Shown, Table, scores_table
from modernbert.errors import RunError
from modernbert.files import write_whole
from modernbert.json_files import read_settings

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
    def of(
        cls,
        outcomes: Sequence[Outcome],
        *,
        verb: str,
        metric: str,
        notes: Sequence[str],
        facts: Mapping[str, Any],
    ) -> "Results":
        """Group outcomes that differ only in their seeds."""
        groups: dict[tuple[float, float, int], list[Outcome]] = {}
        for outcome in outcomes:
            key = outcome.learning_rate, outcome.weight_decay, outcome.epochs
            groups.setdefault(key, []).append(outcome)
        combinations = [
            Combination(learning_rate=rate, weight_decay=decay, epochs=epochs, outcomes=group)
            for (rate, decay, epochs), group in groups.items()
        ]
        return cls(verb=verb, metric=metric, combinations=combinations, notes=notes, facts=facts)

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes of all runs."""
        return [outcome for each in self.combinations for outcome in each.outcomes]

    @property
    def best_combination(self) -> Combination:
        """The combination with the best mean over its seeds; of equal ones, the first."""
        return max(self.combinations, key=lambda each: self._goodness(each.mean("dev")))

    @property
    def best(self) -> Outcome:
        """The best seed of the best combination."""
        return max(self.best_combination.outcomes, key=lambda each: self._goodness(each.dev))

    def _goodness(self, scores: Mapping[str, float]) -> float:
        score = scores.get(self.metric, -math.inf)
        return -score if self.metric == "loss" else score

    def table(self) -> Table:
        """The scores of each combination, or of the best run on each split if there is only one."""
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
