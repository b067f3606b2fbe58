"""Reranker: scores of pairs, ranking, and the folders of CrossEncoders."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from modernbert.batch import PackedBatch
from modernbert.errors import ConfigError, InputError, ModelFolderError
from modernbert.inference.reranker import RankedDocument, Reranker, read_reranker
from modernbert.model.heads import SequenceClassifier

QUERY = "what is the square of 7"
DOCUMENTS = ["the square of 7 is 49", "not", "", "number 3 is not less than 9", "not"]
PAIRS = [(QUERY, document) for document in DOCUMENTS]


@pytest.fixture(scope="module")
def reranker(reranker_folder: Path) -> Reranker:
    return Reranker.from_pretrained(reranker_folder, precision="float32")


def test_scores_are_the_models(reranker: Reranker, reranker_folder: Path) -> None:
    model = SequenceClassifier.from_pretrained(reranker_folder)
    tokenizer = reranker.classifier.tokenizer
    scores = reranker.scores(PAIRS, batch_tokens=30)
    assert scores.shape == (5,) and scores.dtype == np.float32
    for pair, score in zip(PAIRS, scores, strict=True):
        with torch.no_grad():
            logit = model(PackedBatch.from_sequences([tokenizer.encode(*pair)]))
        assert score == pytest.approx(logit.sigmoid().item(), abs=1e-5)


def test_ranking(reranker: Reranker) -> None:
    scores = reranker.scores(PAIRS)
    ranked = reranker.rank(QUERY, DOCUMENTS)
    assert sorted(each.index for each in ranked) == [0, 1, 2, 3, 4]
    assert [each.score for each in ranked] == sorted(scores.tolist(), reverse=True)
    assert [each.index for each in ranked].index(1) < [each.index for each in ranked].index(4)
    assert reranker.rank(QUERY, DOCUMENTS, top_k=2) == ranked[:2]
    assert isinstance(ranked[0], RankedDocument)
    assert reranker.rank(QUERY, []) == []


def test_activations(reranker: Reranker) -> None:
    model, tokenizer = reranker.classifier.model, reranker.classifier.tokenizer
    plain = Reranker(model, tokenizer, activation="Identity")
    logits = plain.scores(PAIRS)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), reranker.scores(PAIRS), atol=1e-6)
    np.testing.assert_allclose(logits, reranker.scores(PAIRS, is_raw=True), atol=1e-6)
    assert reranker.activate(torch.tensor([-500.0, 0, 500])).tolist() == [0, 0.5, 1]
    with pytest.raises(ConfigError, match=r"^activation: got 'tanh', expected one of Identity"):
        Reranker(model, tokenizer, activation="tanh")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        (
            "config.json",
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            "Identity",
        ),
        ("config.json", {"sbert_ce_default_activation_function": "torch.nn.Sigmoid"}, "Sigmoid"),
        ("config_sentence_transformers.json", {"activation_fn": "torch.nn.Identity"}, "Identity"),
        ("config.json", {}, "Sigmoid"),
    ],
)
def test_activations_of_folders(
    tmp_path: Path, file: str, content: dict[str, object], expected: str
) -> None:
    (tmp_path / file).write_text(json.dumps(content))
    assert read_reranker(tmp_path).settings.activation == expected


def test_an_activation_that_is_not_supported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"sentence_transformers": {"activation_fn": "mine.Tanh"}}'
    )
    with pytest.raises(
        ModelFolderError, match=r"config\.json: activation mine.Tanh is not supported"
    ):
        read_reranker(tmp_path)


def test_a_single_label_with_any_problem(reranker_folder: Path, tmp_path: Path) -> None:
    """CrossEncoders do not write the problem; a softmax of one number would always be 1."""
    folder = tmp_path / "single"
    shutil.copytree(reranker_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["problem_type"] = "single_label_classification"
    (folder / "config.json").write_text(json.dumps(config))
    scores = Reranker.from_pretrained(folder, precision="float32").scores(PAIRS)
    expected = Reranker.from_pretrained(reranker_folder, precision="float32").scores(PAIRS)
    np.testing.assert_array_equal(scores, expected)


def test_what_cannot_be(reranker: Reranker, classifier_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^labels: got 3, expected 1, the relevance; use Class"):
        Reranker.from_pretrained(classifier_folder)
    with pytest.raises(InputError, match=r"^pairs: got str, expected pairs of query"):
        reranker.scores(["no pair"])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"^documents: got str, expected a list"):
        reranker.rank(QUERY, "one text")
    with pytest.raises(InputError, match=r"^top_k: got 0"):
        reranker.rank(QUERY, DOCUMENTS, top_k=0)


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,
    reason="sentence-transformers is not installed",
)
@pytest.mark.filterwarnings("default")
def test_as_cross_encoder(reranker: Reranker, reranker_folder: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    theirs = CrossEncoder(str(reranker_folder), device="cpu")
    np.testing.assert_allclose(theirs.predict(PAIRS), reranker.scores(PAIRS), atol=1e-5)
    theirs.activation_fn = torch.nn.Identity()
    theirs.save_pretrained(str(tmp_path))
    back = Reranker.from_pretrained(tmp_path, precision="float32")
    np.testing.assert_allclose(theirs.predict(PAIRS), back.scores(PAIRS), atol=1e-5)
