"""What labels a model without any pretraining gives: TF-IDF of words and logistic regression.

It says whether a model that learns from a handful of examples is worth its cost on them.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from modernbert.tasks.labels.objective import LabelObjective

_PENALTY = 1.0  # on the weights' squares, against the sum of the losses
_ITERATIONS = 200
_WORD = re.compile(r"\w\w+")
_ROWS = 1024  # of held-out texts that are scored at once


def plain_scores(labels: LabelObjective[Any]) -> dict[str, dict[str, float]]:
    """The scores of the plain model on each held-out split.

    Args:
        labels: What is learnt, one label a text; the beginnings of its texts are taken.
    """
    train = labels.splits["train"]
    words = [_words(text) for text in train.shown]
    weights = _inverse_frequencies(words)
    targets = torch.tensor([each.label for each in train.examples])
    num_labels = len(getattr(labels.criterion, "labels", ())) or int(targets.max()) + 1
    weight, bias = logistic_regression(_features(words, weights), targets, num_labels)
    found = {}
    for name, split in labels.splits.items():
        if name != "train":
            texts = [_words(text) for text in split.shown]
            outputs = [
                row
                for start in range(0, len(texts), _ROWS)
                for row in functional.linear(
                    _features(texts[start : start + _ROWS], weights), weight, bias
                )
            ]
            found[name] = labels.criterion.scores(outputs, split.examples)
    return found


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))


def _inverse_frequencies(texts: Sequence[Counter[str]]) -> dict[str, float]:
    """For each word, the smaller the more texts have it; in the order of the columns."""
    counts = Counter(word for text in texts for word in text)
    return {word: 1 + math.log((1 + len(texts)) / (1 + counts[word])) for word in sorted(counts)}


def _features(texts: Sequence[Counter[str]], weights: Mapping[str, float]) -> Tensor:
    """(rows, num_words) float64: the weighted counts of the known words, of length 1."""
    columns = {word: column for column, word in enumerate(weights)}
    features = torch.zeros(len(texts), max(1, len(columns)), dtype=torch.float64)
    for row, text in enumerate(texts):
        for word, count in text.items():
            if word in columns:
                features[row, columns[word]] = count * weights[word]
    return functional.normalize(features, dim=1)


def logistic_regression(features: Tensor, labels: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
    """The weights and biases with the least penalised loss.

    Args:
        features: (rows, hidden_size) float64.
        labels: (rows,) int64.
        num_labels: The number of labels.
    """
    weight = features.new_zeros(num_labels, features.shape[1]).requires_grad_()
    bias = features.new_zeros(num_labels).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = functional.linear(features, weight, bias)
        value = functional.cross_entropy(logits, labels, reduction="sum")
        value = value + _PENALTY / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weight.detach(), bias.detach()
