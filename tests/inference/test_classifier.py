"""Classifier: the model's own logits as scores, for texts and for pairs."""

from pathlib import Path

import pytest
import torch

from modernbert.batch import PackedBatch
from modernbert.errors import InputError, ModelFolderError, TruncationWarning
from modernbert.inference.classifier import Classifier, LabelScore, as_scores
from modernbert.model.heads import SequenceClassifier

TEXTS = ["the square of 7", ("not less", "number 7 is 49"), "not", ""]


@pytest.fixture(scope="module")
def classifier(classifier_folder: Path) -> Classifier:
    return Classifier.from_pretrained(classifier_folder, precision="float32")


def test_scores_are_the_models(classifier: Classifier, classifier_folder: Path) -> None:
    model = SequenceClassifier.from_pretrained(classifier_folder)
    for text, found in zip(TEXTS, classifier.classify(TEXTS, batch_tokens=12), strict=True):
        ids = classifier.tokenizer.encode(*([text] if isinstance(text, str) else text))
        with torch.no_grad():
            scores = model(PackedBatch.from_sequences([ids])).softmax(1)[0]
        expected = dict(zip(("bad", "good", "fair"), scores.tolist(), strict=True))
        assert {each.label: each.score for each in found} == pytest.approx(expected, abs=1e-5)
        assert found == sorted(found, key=lambda each: -each.score)


def test_one_text_and_the_best_label(classifier: Classifier) -> None:
    (best,) = classifier(TEXTS[0], top_k=1)
    assert best == classifier(TEXTS[0])[0] and isinstance(best, LabelScore)
    (best_of_pair,) = classifier(("not less", "number 7 is 49"), top_k=1)
    assert best_of_pair.score == pytest.approx(classifier.classify(TEXTS)[1][0].score, abs=1e-5)
    assert classifier.classify([]) == []


def test_scores_by_kind_of_problem() -> None:
    logits = torch.tensor([[0.0, 2.0]])
    assert as_scores(logits, "single_label").sum().item() == pytest.approx(1)
    assert as_scores(logits, "multi_label")[0, 0].item() == pytest.approx(0.5)
    assert as_scores(logits, "regression").tolist() == [[0.0, 2.0]]


def test_long_pairs_are_cut_and_counted(classifier: Classifier) -> None:
    with pytest.warns(TruncationWarning, match=r"^1 of 2 texts are longer than 32 tokens"):
        classifier.classify([("not", "number " * 40), "not"])


def test_what_cannot_be(classifier: Classifier, tagger_folder: Path) -> None:
    with pytest.raises(InputError, match=r"^top_k: got 0, expected 1 or more"):
        classifier("not", top_k=0)
    with pytest.raises(InputError, match=r"^texts: got str, expected a list of texts"):
        classifier.classify("not")
    with pytest.raises(ModelFolderError, match="holds a classifier of tokens, expected a"):
        Classifier.from_pretrained(tagger_folder)


def test_a_list_is_a_batch_and_a_pair_is_a_tuple_or_an_argument(classifier: Classifier) -> None:
    assert classifier(["a film", "a story"]) == classifier.classify(["a film", "a story"])
    pair = classifier(("a film", "a story"))
    assert pair == classifier("a film", "a story") == classifier([("a film", "a story")])[0]
    with pytest.raises(InputError, match="text_pair: goes with one text, got a tuple"):
        classifier(("a", "b"), "c")
