"""Hard negatives: the nearest documents that are no answers, within the limits."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.small_models import config_for
from tests.tasks.pretraining.small import World

from modernbert.errors import InputError, SettingsError
from modernbert.inference.embedder import Embedder
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.retriever import text_vectors
from modernbert.model.encoder import Encoder
from modernbert.model.multi_vector import MultiVectorModel, projection
from modernbert.tasks.ranking.data import RankedTexts, RetrievalData
from modernbert.tasks.ranking.mining import mine
from modernbert.tasks.ranking.recipe import MiningSettings
from modernbert.tokenizer.tokenizer import Tokenizer

TEXTS = ["one two", "two three", "three four five", "six", "seven eight", "nine one", "ten two six"]
DATA = RetrievalData(
    source="here",
    examples=[
        RankedTexts(query="one", documents=("one two",)),
        RankedTexts(query="one", documents=("nine one",)),
        RankedTexts(query="two six", documents=("ten two six",)),
        RankedTexts(query="unanswered", documents=("six",), relevant=0),
    ],
    known={"one": {"one two", "nine one"}, "two six": {"ten two six"}, "unanswered": set()},
)


@pytest.fixture(scope="module", params=["single", "multi"])
def retriever(request: pytest.FixtureRequest, world: World) -> Any:
    from modernbert.model.initialize import initialize

    tokenizer = Tokenizer.from_pretrained(world.tokenizer)
    config = config_for(tokenizer)
    encoder = initialize(Encoder(config), seed=0)
    if request.param == "single":
        return Embedder(encoder.requires_grad_(False), tokenizer)
    model = MultiVectorModel(encoder, [projection(64, 16, seed=1)]).requires_grad_(False)
    return MultiVectorEmbedder(model, tokenizer)


def scores(retriever: Any, query: str) -> dict[str, float]:
    (own,) = (v for block in text_vectors(retriever, [query], "query") for v in block)
    documents = [v for block in text_vectors(retriever, TEXTS, "document") for v in block]
    return {
        text: float((own @ document.T).max(1).sum())
        for text, document in zip(TEXTS, documents, strict=True)
    }


def test_the_nearest_that_are_no_answers(retriever: Any) -> None:
    rows = list(mine(retriever, DATA, TEXTS, MiningSettings(negatives=3)))
    assert [(row["query"], row["positive"]) for row in rows] == [
        ("one", "one two"),
        ("one", "nine one"),
        ("two six", "ten two six"),
    ]
    for row in rows:
        by_score = scores(retriever, row["query"])
        others = [text for text in TEXTS if text not in DATA.known[row["query"]]]
        expected = sorted(others, key=lambda text: -by_score[text])[:3]
        assert row["negatives"] == expected


def test_ranks_are_skipped_and_looked_at_to_a_depth(retriever: Any) -> None:
    (_, _, row) = mine(retriever, DATA, TEXTS, MiningSettings(negatives=9, skip=2, depth=5))
    by_score = scores(retriever, "two six")
    nearest = sorted(TEXTS, key=lambda text: -by_score[text])[2:5]
    assert row["negatives"] == [text for text in nearest if text != "ten two six"]


@pytest.mark.parametrize("limit", [{"margin": 0.01}, {"ratio": 0.99}])
def test_negatives_stay_below_the_answer(retriever: Any, limit: dict[str, float]) -> None:
    rows = list(mine(retriever, DATA, TEXTS, MiningSettings(negatives=9, **limit)))
    for row in rows:
        by_score = scores(retriever, row["query"])
        own = min(by_score[text] for text in DATA.known[row["query"]])
        most = own - limit.get("margin", 0) if "margin" in limit else own * limit["ratio"]
        expected = {
            text
            for text, score in by_score.items()
            if score <= most + 1e-6 and text not in DATA.known[row["query"]]
        }
        assert set(row["negatives"]) == expected
    unlimited = list(mine(retriever, DATA, TEXTS, MiningSettings(negatives=9)))
    count = sum(len(row["negatives"]) for row in unlimited)
    assert sum(len(row["negatives"]) for row in rows) < count


def test_a_teacher_scores_them(retriever: Any) -> None:
    class Teacher:
        def scores(self, pairs: list[tuple[str, str]], *, is_raw: bool) -> np.ndarray:
            assert is_raw  # as the losses compare them with what a model gives before any sigmoid
            return np.array([len(text) for _, text in pairs], np.float32)

    settings = MiningSettings(negatives=2)
    for row in mine(retriever, DATA, TEXTS, settings, teacher=Teacher()):  # type: ignore[arg-type]
        assert row["scores"] == [len(text) for text in (row["positive"], *row["negatives"])]


def test_a_teacher_decides_what_is_too_near(retriever: Any) -> None:
    class Teacher:
        def scores(self, pairs: list[tuple[str, str]], *, is_raw: bool = False) -> np.ndarray:
            del is_raw
            return np.array([len(text) for _, text in pairs], np.float32)

    settings = MiningSettings(negatives=9, margin=2, limit_by="teacher")
    rows = list(mine(retriever, DATA, TEXTS, settings, teacher=Teacher()))  # type: ignore[arg-type]
    assert [row["query"] for row in rows] == ["one", "one", "two six"]
    for row in rows:
        own = min(len(text) for text in DATA.known[row["query"]])
        others = set(TEXTS) - DATA.known[row["query"]]
        assert set(row["negatives"]) == {text for text in others if len(text) <= own - 2}
    with pytest.raises(InputError, match="there is no teacher"):
        next(mine(retriever, DATA, TEXTS, settings))


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None
    or importlib.util.find_spec("datasets") is None,
    reason="sentence-transformers or datasets is not installed",
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("limits", [{"margin": 0.02}, {"ratio": 0.97}])
def test_the_limits_are_those_of_sentence_transformers(
    tmp_path: Path, retriever: Any, limits: dict[str, float]
) -> None:
    if not isinstance(retriever, Embedder):
        pytest.skip("theirs mines with one vector a text")
    import datasets
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    retriever.save_pretrained(tmp_path / "model")
    given = [each for each in DATA.examples if each.relevant]
    theirs = mine_hard_negatives(
        datasets.Dataset.from_dict(
            {"query": [x.query for x in given], "answer": [x.documents[0] for x in given]}
        ),
        SentenceTransformer(str(tmp_path / "model"), device="cpu"),
        corpus=TEXTS,
        range_max=len(TEXTS),
        num_negatives=2,
        absolute_margin=limits.get("margin"),
        relative_margin=1 - limits["ratio"] if "ratio" in limits else None,
        sampling_strategy="top",
        output_format="triplet",
        verbose=False,
    )
    expected = {(row["query"], row["negative"]) for row in theirs}
    rows = mine(retriever, DATA, TEXTS, MiningSettings(negatives=2, **limits))  # type: ignore[arg-type]
    assert {(row["query"], text) for row in rows for text in row["negatives"]} == expected
    assert expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"negatives": 0}, "expected 1 or more"),
        ({"skip": 5, "depth": 5}, "more than skip, which is 5"),
        ({"margin": -1}, "margin: got -1"),
        ({"ratio": 2}, "ratio: got 2"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        MiningSettings(**settings)


def test_mined_rows_are_read_again(tmp_path: Path, retriever: Any) -> None:
    import json

    from modernbert.tasks.ranking.data import read_retrieval_data

    rows = list(mine(retriever, DATA, TEXTS, MiningSettings(negatives=2)))
    path = tmp_path / "mined.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_retrieval_data(path)
    assert [each.documents for each in read.examples] == [
        (row["positive"], *row["negatives"]) for row in rows
    ]
