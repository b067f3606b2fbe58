"""Numbers on their way into an answer: not too many, and all of them finite."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from modernbert.serving.refusal import Refusal, too_large

MAX_NUMBERS = 1 << 23
"""Of an answer: 8 million numbers are about 150 MB of JSON."""


def require_small(numbers: int, name: str) -> None:
    """Refuse an answer of too many numbers, before they are computed.

    Raises:
        Refusal: more than `MAX_NUMBERS`.
    """
    if numbers > MAX_NUMBERS:
        raise too_large(f"{name}: the answer would be {numbers:,} numbers; send fewer texts")


def require_finite(values: Tensor) -> Tensor:
    """The same values.

    Raises:
        Refusal: some are not finite.
    """
    if not values.isfinite().all():
        raise Refusal(424, "Backend", "the model gave numbers that are not finite")
    return values


def as_lists(tensors: Sequence[Tensor]) -> list[Any]:
    """Tensors as JSON has them.

    Raises:
        Refusal: some values are not finite.
    """
    return [require_finite(each).tolist() for each in tensors]
