"""The plain model beside a classifier: against scikit-learn, and texts without a known word."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from modernbert.metrics.plain_model import (
    _features,
    _inverse_frequencies,
    _words,
    logistic_regression,
)

TEXTS = ["good film one", "bad film two", "odd story three", "good story four", "a bad, bad thing"]
LABELS = [0, 1, 2, 0, 1]
HELD_OUT = ["a good thing", "bad one here", "An ODD film", "unknown"]


def _probabilities(texts: Sequence[str], labels: Sequence[int] = LABELS) -> Any:
    words = [_words(text) for text in TEXTS]
    weights = _inverse_frequencies(words)
    num_labels = len(set(labels))
    weight, bias = logistic_regression(_features(words, weights), torch.tensor(labels), num_labels)
    features = _features([_words(text) for text in texts], weights)
    return (features @ weight.t() + bias).softmax(1)


@pytest.mark.parametrize("labels", [LABELS, [min(label, 1) for label in LABELS]])
def test_it_is_that_of_scikit_learn(labels: list[int]) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    vectorizer = text.TfidfVectorizer()
    model = linear.LogisticRegression(tol=1e-10, max_iter=10_000)
    model.fit(vectorizer.fit_transform(TEXTS), labels)
    expected = torch.from_numpy(model.predict_proba(vectorizer.transform(HELD_OUT)))
    torch.testing.assert_close(_probabilities(HELD_OUT, labels), expected, atol=1e-3, rtol=0)


def test_a_known_word_raises_the_probability_of_its_label() -> None:
    good, bad, odd, unknown = _probabilities(HELD_OUT)
    assert good[0] > unknown[0] and bad[1] > unknown[1] and odd[2] > unknown[2]
    assert good.argmax() == 0 and bad.argmax() == 1


def test_a_text_without_a_known_word_is_a_row_of_zeros() -> None:
    features = _features([_words("unknown"), _words("")], {"good": 1.0, "bad": 2.0})
    assert features.shape == (2, 2) and not features.to_dense().any()
