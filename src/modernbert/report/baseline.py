"""What knowing only how frequent each token is would give: the least that a model must beat."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_CHUNK_TOKENS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A guess at masked tokens that does not look at the text around them.

    Attributes:
        loss: Cross entropy in nats a masked token.
        accuracy: Fraction of the masked tokens that were guessed right.
    """

    loss: float
    accuracy: float


def count_tokens(arrays: Iterable[np.ndarray], vocab_size: int) -> np.ndarray:
    """How often each id occurs, as (vocab_size,) int64; the arrays may be larger than memory.

    >>> count_tokens([np.array([1, 2, 1]), np.array([3])], 5)
    array([0, 2, 1, 1, 0])
    """
    counts = np.zeros(vocab_size, dtype=np.int64)
    for array in arrays:
        for start in range(0, len(array), _CHUNK_TOKENS):
            counts += np.bincount(array[start : start + _CHUNK_TOKENS], minlength=vocab_size)
    return counts


def unigram_baseline(counts: np.ndarray, targets: np.ndarray) -> Baseline:
    """The unigram distribution of the training tokens, applied to held-out masked tokens.

    Every token is counted once more than it occurred, so that none is impossible; the guess is
    always the most frequent token.

    >>> unigram_baseline(np.array([1, 5, 0]), np.array([1, 1, 0, 2])).accuracy
    0.5

    Args:
        counts: (vocab_size,) int64, of the training tokens.
        targets: (num_masked,) int64, the tokens to guess.
    """
    probabilities = (counts + 1) / (counts.sum() + len(counts))
    return Baseline(
        loss=float(-np.log(probabilities[targets]).mean()),
        accuracy=float((targets == counts.argmax()).mean()),
    )
