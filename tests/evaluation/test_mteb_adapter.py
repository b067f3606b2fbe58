"""Adapters for mteb: called as it calls them, with batches and rows that stand in for its own."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.rounding import assert_equal_but_for_rounding, terms_of_encoder

from modernbert.errors import InputError
from modernbert.evaluation.mteb_adapter import MtebEncoder, MtebReranker, MtebSearcher
from modernbert.inference.embedder import Embedder
from modernbert.inference.embedder_folder import EmbedderSettings


class PromptType(StrEnum):
    query = "query"
    document = "document"


CONTEXT = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}
BATCHES = [{"text": ["it is good", "it is bad"]}, {"text": ["number 3 is fine"]}]
TEXTS = [text for batch in BATCHES for text in batch["text"]]


@pytest.fixture(scope="module")
def embedder(model: Path) -> Embedder:
    plain = Embedder.from_pretrained(model, precision="float32")
    settings = EmbedderSettings(prompts={"query": "number ", "document": "it is "})
    return Embedder(plain.encoder, plain.tokenizer, settings)


def test_vectors_of_a_side(embedder: Embedder) -> None:
    adapter = MtebEncoder(embedder)
    config = embedder.encoder.config
    num_terms = terms_of_encoder(config, config.max_seqlen)
    for prompt_type, expected in (
        (None, embedder.encode(TEXTS)),
        (PromptType.query, embedder.encode_query(TEXTS)),
        (PromptType.document, embedder.encode_document(TEXTS)),
    ):
        found = adapter.encode(BATCHES, **CONTEXT, prompt_type=prompt_type, batch_size=8)
        assert_equal_but_for_rounding(found, expected, num_terms=num_terms)
    vectors = adapter.encode(BATCHES, **CONTEXT)
    pairs = adapter.similarity_pairwise(vectors, vectors[::-1].copy())
    expected = adapter.similarity(vectors, vectors[::-1].copy()).diag()
    assert_equal_but_for_rounding(pairs, expected, num_terms=vectors.shape[1])
    with pytest.raises(InputError, match="got a batch of image, expected texts"):
        adapter.encode([{"image": [None]}], **CONTEXT)


def test_searching(embedder: Embedder) -> None:
    adapter = MtebSearcher(embedder)
    corpus = [{"id": f"d{i}", "title": "", "text": text} for i, text in enumerate(TEXTS)]
    adapter.index(corpus, **CONTEXT, encode_kwargs={}, num_proc=None)
    queries = [{"id": "a", "text": "good"}, {"id": "b", "text": "fine"}]
    options: Any = {**CONTEXT, "encode_kwargs": {}, "num_proc": None}
    found = adapter.search(queries, top_k=2, **options)
    scores = embedder.similarity(
        embedder.encode_query(["good", "fine"]), embedder.encode_document(TEXTS)
    )
    for row, query in enumerate("ab"):
        best = scores[row].argsort(descending=True)[:2].tolist()
        assert list(found[query]) == [f"d{place}" for place in best]
        assert list(found[query].values()) == pytest.approx(scores[row][best].tolist(), abs=1e-5)
    among = adapter.search(queries, top_k=2, top_ranked={"a": ["d2"], "b": ["d0", "d1"]}, **options)
    assert {query: set(names) for query, names in among.items()} == {"a": {"d2"}, "b": {"d0", "d1"}}


def test_reranking() -> None:
    class Scorer:
        def scores(self, pairs: list[tuple[str, str]]) -> np.ndarray:
            return np.array([len(query) + len(text) for query, text in pairs], np.float32)

    adapter = MtebReranker(Scorer())  # type: ignore[arg-type]
    found = adapter.predict(BATCHES, BATCHES[::-1], **CONTEXT)
    assert found.tolist() == [26.0, 19.0, 25.0]


def test_without_the_package(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(InputError, match="pip install mteb"):
        _ = MtebEncoder(embedder).mteb_model_meta
