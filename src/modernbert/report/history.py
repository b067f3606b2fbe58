"""The log of a run, `metrics.jsonl`, for plots, and the baseline that its model must beat.

A million steps are a few arrays of numbers here and not a million dictionaries.
"""

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from modernbert.errors import RunError
from modernbert.json_files import log_row

METRICS_FILE = "metrics.jsonl"
LogRow = Mapping[str, Any]

# Of a step that is done once more, what told of its outcome does not count any longer.
_OUTCOMES = ("evaluation", "checkpoint", "end")


@dataclass(frozen=True, eq=False)
class Curve:
    """A figure over the course of a run.

    Attributes:
        tokens: (num_points,), the tokens that the run had seen, ascending.
        values: (num_points,), the figure at each point.
    """

    tokens: np.ndarray
    values: np.ndarray

    def __bool__(self) -> bool:
        return len(self.tokens) > 0

    def after(self, tokens: float) -> "Curve":
        """Return the points from a number of tokens on."""
        late = self.tokens >= tokens
        return Curve(self.tokens[late], self.values[late])

    def smoothed(self, half_width: int) -> "Curve":
        """Average the points around each point, with as many before as after, so that nothing lags.

        >>> Curve(np.arange(4), np.array([9.0, 3.0, 0.0, 3.0])).smoothed(1).values.tolist()
        [9.0, 4.0, 2.0, 1.5]

        Args:
            half_width: The points on either side; near the ends there are fewer.
        """
        index = np.arange(len(self.values))
        reach = np.minimum(index, half_width)
        first, end = index - reach, np.minimum(len(index), index + reach + 1)
        sums = np.concatenate([np.zeros(1), np.cumsum(self.values)])
        return Curve(self.tokens, (sums[end] - sums[first]) / (end - first))


class RunHistory:
    """The rows of a log that still count, in their order.

    A run that was resumed, or that went back, repeats some steps; the later ones count.

    Attributes:
        events: All rows except those of steps.
        last_step: The row of the last step; None before the first.
        phases: The names of the phases in the order of their first steps; "" if steps name none.
    """

    def __init__(self) -> None:
        self.events: list[LogRow] = []
        self.phases: list[str] = []
        self.num_steps = 0
        self.last_step: LogRow | None = None
        self._columns: dict[str, array[float]] = {}
        self._phase_of: array[int] = array("l")

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a whole log; an incomplete last line of a killed process is ignored.

        Raises:
            RunError: There is no such file.
        """
        history = cls()
        try:
            with Path(path).open("rb") as lines:
                for line in lines:
                    if (row := log_row(line)) is not None:
                        history.add(row)
        except OSError as error:
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                raise RunError(f"{path}: no such file; give the folder of a run") from None
            raise RunError(f"{path}: not a readable log of a run: {error.strerror}") from None
        return history

    def add(self, row: LogRow) -> None:
        """Add the next row of the log."""
        if row["kind"] == "step":
            if self._last_number >= (step := number(row.get("step"))):
                self._forget_from(step)
            self._add_step(row)
            return
        if row["kind"] == "resume" and self._last_number > (step := number(row.get("step"))):
            self._forget_from(step + 1)
        self.events.append(row)

    def column(self, figure: str) -> np.ndarray:
        """Return a figure of every step as (num_steps,) float64, NaN for steps that lack it."""
        if figure not in self._columns:
            return np.full(self.num_steps, math.nan)
        return np.array(self._columns[figure])

    @property
    def phase_of_steps(self) -> np.ndarray:
        """Return the index in `phases` of each step's phase, (num_steps,) int64."""
        return np.array(self._phase_of, dtype=np.int64)

    def curve(self, figure: str) -> Curve:
        """Return a figure of the steps that have it."""
        tokens, values = self.column("tokens"), self.column(figure)
        present = np.isfinite(tokens) & ~np.isnan(values)
        return Curve(tokens[present], values[present])

    def event_curve(self, kind: str, figure: str) -> Curve:
        """Return a figure of the rows of one kind that have it."""
        rows = self.of_kind(kind)
        points = np.array([[number(row.get("tokens")), number(row.get(figure))] for row in rows])
        points = points.reshape(-1, 2)
        points = points[np.isfinite(points).all(axis=1)]
        return Curve(points[:, 0], points[:, 1])

    def of_kind(self, *kinds: str) -> list[LogRow]:
        """Return the rows of these kinds, other than steps."""
        return [row for row in self.events if row["kind"] in kinds]

    @property
    def starts(self) -> list[LogRow]:
        """Return the rows of the run's start and resumes."""
        return self.of_kind("start", "resume")

    @property
    def last_tokens(self) -> float:
        """The number of tokens that the run has seen so far."""
        tokens = self._columns.get("tokens")
        return tokens[-1] if tokens else 0.0

    @property
    def _last_number(self) -> float:
        steps = self._columns.get("step")
        return steps[-1] if steps else -1.0

    def _add_step(self, row: LogRow) -> None:
        for name, value in row.items():
            if name not in ("kind", "phase") and name not in self._columns:
                if not isinstance(value, int | float):
                    continue
                self._columns[name] = array("d", [math.nan] * self.num_steps)
        for name, column in self._columns.items():
            column.append(number(row.get(name)))
        phase = str(row.get("phase", ""))
        if phase not in self.phases:
            self.phases.append(phase)
        self._phase_of.append(self.phases.index(phase))
        self.num_steps += 1
        self.last_step = row

    def _forget_from(self, step: float) -> None:
        """Drop the steps from `step` on, and what was recorded about them."""
        steps = self.column("step")
        kept = int(np.searchsorted(steps, step))
        for column in self._columns.values():
            del column[kept:]
        del self._phase_of[kept:]
        self.num_steps = kept
        self.phases = self.phases[: max(self._phase_of, default=-1) + 1]
        self.events = [
            row
            for row in self.events
            if row["kind"] not in _OUTCOMES or number(row.get("step")) < step
        ]


def number(value: Any) -> float:
    """Return a value of a row as a number, NaN for anything else."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        return math.nan


_CHUNK_TOKENS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A prediction of masked tokens that ignores the text around them.

    Attributes:
        loss: The cross entropy, in nats per masked token.
        accuracy: The fraction of masked tokens that are predicted correctly.
    """

    loss: float
    accuracy: float


def count_tokens(arrays: Iterable[np.ndarray], vocab_size: int) -> np.ndarray:
    """Count how often each id occurs; the arrays may be larger than memory.

    >>> count_tokens([np.array([1, 2, 1]), np.array([3])], 5)
    array([0, 2, 1, 1, 0])

    Args:
        arrays: Token ids.
        vocab_size: The number of tokens in the vocabulary.

    Returns:
        (vocab_size,) int64.
    """
    counts = np.zeros(vocab_size, dtype=np.int64)
    for ids in arrays:
        for start in range(0, len(ids), _CHUNK_TOKENS):
            counts += np.bincount(ids[start : start + _CHUNK_TOKENS], minlength=vocab_size)
    return counts


def unigram_baseline(counts: np.ndarray, targets: np.ndarray) -> Baseline:
    """Apply the unigram distribution of the training tokens to held-out masked tokens.

    Every token is counted once more than it occurred, so that no token is impossible. The predicted
    token is always the most frequent one.

    >>> unigram_baseline(np.array([1, 5, 0]), np.array([1, 1, 0, 2])).accuracy
    0.5

    Args:
        counts: (vocab_size,) int64, the counts of the training tokens.
        targets: (num_masked,) int64, the tokens to predict.
    """
    probabilities = (counts + 1) / (counts.sum() + len(counts))
    return Baseline(
        loss=float(-np.log(probabilities[targets]).mean()),
        accuracy=float((targets == counts.argmax()).mean()),
    )
