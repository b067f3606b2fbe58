"""Scores of answers to questions, computed as for SQuAD.

Answers are compared without case, punctuation, articles and extra white space. If a question has
several right answers, the best match counts. If it has none, only an empty answer is right.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

from modernbert.metrics.classification import require_equal_length

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(answer: str) -> str:
    """Reduce an answer to what counts.

    >>> normalised("  The Eiffel-Tower!")
    'eiffeltower'
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(predicted: str, answers: Sequence[str]) -> float:
    """Return 1 if the prediction is one of the answers, otherwise 0."""
    return float(normalised(predicted) in {normalised(answer) for answer in answers or [""]})


def overlap_f1(predicted: str, answers: Sequence[str]) -> float:
    """Compute the F1 of the words that the prediction shares with the best matching answer.

    >>> overlap_f1("the green house", ["a house", "green garden"])
    0.6666666666666666
    """
    return max(_f1(normalised(predicted).split(), normalised(a).split()) for a in answers or [""])


def answer_scores(predicted: Sequence[str], expected: Sequence[Sequence[str]]) -> dict[str, float]:
    """Compute the mean exact match and the mean F1 over all questions.

    Args:
        predicted: The predicted answer to each question; an empty text for no answer.
        expected: The right answers to each question; an empty list for a question without one.

    Returns:
        `exact_match` and `f1`, both from 0 to 1.

    Raises:
        InputError: There are no questions, or their number differs from that of predictions.
    """
    require_equal_length(predicted, expected)
    pairs = list(zip(predicted, expected, strict=True))
    return {
        "exact_match": sum(exact_match(*pair) for pair in pairs) / len(pairs),
        "f1": sum(overlap_f1(*pair) for pair in pairs) / len(pairs),
    }


def _f1(given: list[str], wanted: list[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    shared = (Counter(given) & Counter(wanted)).total()
    return 2 * shared / (len(given) + len(wanted))
