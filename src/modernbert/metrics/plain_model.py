"""The plain model that classifiers are compared with: TF-IDF of words and logistic regression."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

_PENALTY = 1.0  # on the weights' squares, against the sum of the losses; C = 1 of scikit-learn
_ITERATIONS = 200
_WORD = re.compile(r"\w\w+")
_MOST_ROWS, _MOST_WEIGHTS = 10_000, 10_000_000  # seconds of learning


def plain_outputs(
    texts: Sequence[str],
    labels: Tensor,
    num_labels: int,
    held_out: Mapping[str, Sequence[str]],
) -> dict[str, Tensor]:
    """Learn the plain model, and compute its outputs for held-out texts.

    Args:
        texts: The training texts.
        labels: (num_texts,) int64. The label of each.
        num_labels: The number of labels.
        held_out: The texts of each split.

    Returns:
        (num_texts of the split, num_labels) float64 for each split; nothing where learning would
        take minutes.
    """
    if len(texts) > _MOST_ROWS:
        return {}
    words = [_words(text) for text in texts]
    weights = _inverse_frequencies(words)
    if num_labels * len(weights) > _MOST_WEIGHTS:
        return {}
    weight, bias = logistic_regression(_features(words, weights), labels, num_labels)
    found = {}
    for name, split in held_out.items():
        features = _features([_words(text) for text in split], weights)
        found[name] = features @ weight.t() + bias
    return found


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))


def _inverse_frequencies(texts: Sequence[Counter[str]]) -> dict[str, float]:
    """Return a weight for each word, smaller for words of many texts, in the order of columns."""
    counts = Counter(word for text in texts for word in text)
    return {word: 1 + math.log((1 + len(texts)) / (1 + counts[word])) for word in sorted(counts)}


def _features(texts: Sequence[Counter[str]], weights: Mapping[str, float]) -> Tensor:
    """Return (rows, num_words) sparse float64: weighted counts of known words, of length 1."""
    columns = {word: column for column, word in enumerate(weights)}
    places: list[tuple[int, int]] = []
    values: list[float] = []
    for row, text in enumerate(texts):
        known = {word: count * weights[word] for word, count in text.items() if word in weights}
        length = math.hypot(*known.values())
        places += ((row, columns[word]) for word in known)
        values += (value / length for value in known.values())
    return torch.sparse_coo_tensor(
        torch.tensor(places, dtype=torch.int64).view(-1, 2).t(),
        torch.tensor(values, dtype=torch.float64),
        (len(texts), max(1, len(columns))),
        check_invariants=True,
    )


def logistic_regression(features: Tensor, labels: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
    """Return the weights and biases with the smallest penalised loss, those of scikit-learn.

    Of two labels it has one row of weights, the difference of the two here: its square counts twice
    the sum of theirs.

    Args:
        features: (rows, hidden_size) float64, which may be sparse.
        labels: (rows,) int64.
        num_labels: The number of labels.
    """
    penalty = _PENALTY * (2 if num_labels == 2 else 1)
    weight = torch.zeros(num_labels, features.shape[1], dtype=features.dtype).requires_grad_()
    bias = torch.zeros(num_labels, dtype=features.dtype).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = features @ weight.t() + bias
        value = functional.cross_entropy(logits, labels, reduction="sum")
        value = value + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weight.detach(), bias.detach()
