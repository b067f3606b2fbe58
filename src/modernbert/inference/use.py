"""`Use`: one thing that a model is used for, as encode, compute and finish.

    items -> encode -> sequences of token ids -> compute, in batches -> finish -> results

Whoever runs it, `TextModel` over any number of items or the server over those of many requests,
decides which sequences share a batch. Results that are not finite are refused here, for all.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import ResultError
from modernbert.inference.inputs import num_characters

T = TypeVar("T")
E = TypeVar("E")
R = TypeVar("R")
O = TypeVar("O")  # noqa: E741


@dataclass(frozen=True, kw_only=True)
class Use(Generic[T, E, R, O]):
    """One use of one model.

    Attributes:
        name: What is computed; uses of a model that have the same name may share batches.
        encode: Items to what is known of each, with its token ids.
        compute: A batch to one result for each sequence, in their order, on the CPU.
        finish: What is known of some items, and what was computed of each, to their results.
        max_seqlen: The longest sequence that is read, in tokens.
        size: The size of an item, in characters.
    """

    name: Hashable
    encode: Callable[[list[T]], list[E]]
    compute: Callable[[PackedBatch], Sequence[R]]
    finish: Callable[[Sequence[E], Sequence[R]], Sequence[O]]
    max_seqlen: int
    size: Callable[[Any], int] = num_characters

    def results(
        self, encoded: Sequence[E], computed: Sequence[R], *, first: int = 0
    ) -> Sequence[O]:
        """Finish some items.

        Args:
            encoded: What `encode` gave.
            computed: What `compute` gave for each of them.
            first: The place of the first of these items, for a message.

        Raises:
            ResultError: A number that is not finite.
        """
        for place, result in enumerate(computed, start=first):
            if not _is_finite(result):
                raise ResultError(
                    f"text {place}: the model gave numbers that are not finite; its weights may be "
                    "damaged, or too large for this precision: try float32"
                )
        return self.finish(encoded, computed)


def _is_finite(result: Any) -> bool:
    if isinstance(result, Tensor):
        return not result.is_floating_point() or bool(result.isfinite().all())
    return all(map(_is_finite, result))
