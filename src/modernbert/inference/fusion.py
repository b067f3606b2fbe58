"""Joining what was found by vectors with what was found by words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from modernbert.errors import SettingsError

FusionMethod = Literal["rrf", "scores"]


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """How two rankings of the same query become one.

    Attributes:
        method: By reciprocal ranks (Cormack et al. 2009), or by scores, those of each ranking from
            0 for its last document to 1 for its first.
        weight: The share of the vectors, from 0 to 1; the words have the rest.
        depth: How many documents of each ranking take part.
        constant: What is added to each rank; the larger, the less the first ranks stand out.

    Raises:
        SettingsError: A number out of its range.
    """

    method: FusionMethod = "rrf"
    weight: float = 0.5
    depth: int = 100
    constant: float = 60.0

    def __post_init__(self) -> None:
        if self.method not in ("rrf", "scores"):
            raise SettingsError(f"method: got {self.method!r}, expected rrf or scores")
        if not 0 <= self.weight <= 1:
            raise SettingsError(f"weight: got {self.weight}, expected a number from 0 to 1")
        if self.depth < 1 or self.constant < 0:
            raise SettingsError("depth and constant: expected 1 or more, and 0 or more")

    def __call__(
        self, by_vectors: Sequence[tuple[int, float]], by_words: Sequence[tuple[int, float]]
    ) -> list[tuple[int, float]]:
        """Join the documents of two rankings, given as rows and scores, best first.

        >>> Fusion()([(7, 0.9), (3, 0.8)], [(3, 12.0)])[0][0]
        3
        """
        sums: dict[int, float] = {}
        for weight, ranking in ((self.weight, by_vectors), (1 - self.weight, by_words)):
            for row, part in self._parts(ranking).items():
                sums[row] = sums.get(row, 0.0) + 2 * weight * part
        return sorted(sums.items(), key=lambda each: (-each[1], each[0]))

    def _parts(self, ranking: Sequence[tuple[int, float]]) -> Mapping[int, float]:
        """What each document of a ranking gets."""
        if self.method == "rrf":
            return {row: 1 / (self.constant + rank) for rank, (row, _) in enumerate(ranking, 1)}
        scores = [score for _, score in ranking]
        low, high = min(scores, default=0.0), max(scores, default=0.0)
        span = high - low
        return {row: (score - low) / span if span else 1.0 for row, score in ranking}
