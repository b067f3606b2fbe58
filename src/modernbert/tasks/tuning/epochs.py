"""Which rows a step has: each epoch all of them, in an order of its own.

Everything follows from the seed, the epoch and the place within it, so that a run is taken up
anywhere. Nothing is padded, so rows of unlike lengths may stand beside each other at no cost.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class StepRows(NamedTuple):
    """The rows of one step, and the place after it: rows seen since the run began."""

    rows: list[int]
    position: int


@dataclass(frozen=True, kw_only=True)
class Epochs:
    """Rows of some lengths, epoch after epoch, cut into steps.

    lengths: tokens of each row.
    batch_size: rows of a step; the last of an epoch has what is left.
    batch_tokens: the most tokens of a step in place of that, but one row in any case.
    """

    lengths: Sequence[int]
    batch_size: int
    batch_tokens: int | None = None
    seed: int = 0

    def steps(self, position: int = 0) -> Iterator[StepRows]:
        """The steps from a place on, without end.

        >>> epochs = Epochs(lengths=[1, 1, 1], batch_size=2)
        >>> steps = epochs.steps(position=3)
        >>> [len(next(steps).rows), len(next(steps).rows)]
        [2, 1]
        """
        epoch, done = divmod(position, len(self.lengths))
        while True:
            begun = epoch * len(self.lengths)
            for rows, end in self._steps_of(epoch):
                if end > done:
                    yield StepRows(rows, begun + end)
            epoch, done = epoch + 1, 0

    def num_steps(self, num_epochs: int) -> int:
        """The steps of the first epochs together."""
        return sum(1 for epoch in range(num_epochs) for _ in self._steps_of(epoch))

    @property
    def num_tokens(self) -> int:
        """Of one epoch."""
        return sum(self.lengths)

    def _steps_of(self, epoch: int) -> Iterator[tuple[list[int], int]]:
        """The rows of each step of an epoch, and how many rows of it are then seen."""
        generator = np.random.Generator(np.random.PCG64DXSM([self.seed, epoch]))
        rows: list[int] = []
        tokens = 0
        for seen, row in enumerate(generator.permutation(len(self.lengths)).tolist()):
            if rows and self._is_full(len(rows), tokens + self.lengths[row]):
                yield rows, seen
                rows, tokens = [], 0
            rows.append(row)
            tokens += self.lengths[row]
        yield rows, len(self.lengths)

    def _is_full(self, num_rows: int, tokens_with_next: int) -> bool:
        if self.batch_tokens is None:
            return num_rows == self.batch_size
        return tokens_with_next > self.batch_tokens
