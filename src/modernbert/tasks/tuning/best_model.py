"""The best weights of a run, kept on the disk, and when it is of no use to go on."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from modernbert.errors import InputError, TrainingError
from modernbert.files import remove_folder
from modernbert.model.pretrained import SavedModel
from modernbert.training.log import read_metrics
from modernbert.training.trainer import METRICS_FILE


class BestModel:
    """Hears of each evaluation and keeps the model of the best one; the first of equal ones.

    It is an observer of a run as well: what was found before a resume it reads in the run's log.

    run_folder: where the run's log is; the model goes into its folder `best`.
    metric: the score that is to be high; with `loss`, low.
    patience: evaluations without a better one after which the run should end; None for never.
    """

    def __init__(self, run_folder: Path, metric: str, patience: int | None = None) -> None:
        self.folder = run_folder / "best"
        self.metric, self.patience = metric, patience
        self.figures: list[tuple[int, Mapping[str, float]]] = []
        self._log = run_folder / METRICS_FILE

    def __call__(self, record: Mapping[str, Any]) -> None:
        """One record of the run."""
        if record["kind"] == "resume":
            rows = (row for row in read_metrics(self._log) if row["kind"] == "evaluation")
            self.figures = [(row["step"], _figures(row)) for row in rows]

    def evaluated(self, model: nn.Module, step: int, figures: Mapping[str, float]) -> None:
        """One evaluation; the model is kept when it is the best so far.

        Raises:
            InputError: there is no score of that name.
            TrainingError: the score is NaN.
        """
        if self.metric not in figures:
            raise InputError(
                f"metric: got {self.metric!r}, expected one of {', '.join(sorted(figures))}"
            )
        if math.isnan(figures[self.metric]):
            raise TrainingError(f"step {step}: {self.metric} is NaN; take a lower learning rate")
        self.figures.append((step, dict(figures)))
        if self.best_step == step:
            self.keep(model)

    def keep(self, model: nn.Module) -> None:
        """Write a model in place of the one that was the best."""
        assert isinstance(model, SavedModel)
        if self.folder.exists():
            remove_folder(self.folder)
        model.save_pretrained(self.folder)

    @property
    def best_step(self) -> int | None:
        """The step of the best evaluation; None before there is any."""
        return self.figures[self._best][0] if self.figures else None

    @property
    def best_figures(self) -> Mapping[str, float]:
        """The figures of the best evaluation; empty before there is any."""
        return self.figures[self._best][1] if self.figures else {}

    def out_of_patience(self) -> bool:
        """Whether too many evaluations in a row were no better."""
        if self.patience is None or not self.figures:
            return False
        return len(self.figures) - 1 - self._best >= self.patience

    @property
    def _best(self) -> int:
        """The place of the best evaluation."""
        return max(range(len(self.figures)), key=lambda place: (self._goodness(place), -place))

    def _goodness(self, place: int) -> float:
        score = self.figures[place][1][self.metric]
        return -score if self.metric == "loss" else score


def _figures(row: Mapping[str, Any]) -> dict[str, float]:
    """The scores of a record of an evaluation."""
    besides = ("kind", "step", "phase", "tokens", "seconds")
    return {name: value for name, value in row.items() if name not in besides}
