"""The baseline that a model must beat: predicting tokens from their frequencies alone."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

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
    for array in arrays:
        for start in range(0, len(array), _CHUNK_TOKENS):
            counts += np.bincount(array[start : start + _CHUNK_TOKENS], minlength=vocab_size)
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
