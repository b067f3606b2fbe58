"""Multi-vector models behind the server, against the same model used offline."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.serving.conftest import Serve, serving, text_of
from tests.serving.test_routes import close, post, refused

from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.multi_vector_inputs import MultiVectorSettings, QueryExpansion
from modernbert.model.encoder import Encoder
from modernbert.model.multi_vector import MultiVectorModel, projection
from modernbert.serving import routes
from modernbert.serving.models import ServedModel, load
from modernbert.serving.service import Service
from modernbert.tokenizer.tokenizer import Tokenizer

TEXTS = [text_of(3), "", text_of(90, 1), "12, not 34.", text_of(20, 2)]


@pytest.fixture
def embedder(models: list[ServedModel]) -> MultiVectorEmbedder:
    (found,) = (m.part(MultiVectorEmbedder) for m in models if m.can([MultiVectorEmbedder]))
    return found


def same(got: list[Any], expected: list[np.ndarray]) -> bool:
    return all(close(each, other) for each, other in zip(got, expected, strict=True))


def test_vectors_of_both_sides(client: httpx.Client, embedder: MultiVectorEmbedder) -> None:
    documents = embedder.encode_document(TEXTS)
    assert same(post(client, "/vectors/embed_all", inputs=TEXTS), documents)
    named = post(client, "/vectors/embed_all", inputs=TEXTS, prompt_name="document")
    assert same(named, documents)
    asked = {"inputs": TEXTS[0], "prompt_name": "query"}
    (query,) = post(client, "/embed_all", model="vectors", **asked)
    assert same([query], embedder.encode_query(TEXTS[0]))
    skipped = len(embedder.tokenizer.encode("[unused1]" + TEXTS[3])) - len(documents[3])
    assert skipped == 2  # the comma and the full stop


def test_ranking_is_max_sim(client: httpx.Client, embedder: MultiVectorEmbedder) -> None:
    query = "square, not root, of 12."  # whose stops count, unlike those of documents
    scores = embedder.similarity(embedder.encode_query(query), embedder.encode_document(TEXTS))[0]
    got = post(client, "/vectors/rerank", query=query, texts=TEXTS, return_text=True)
    assert [row["index"] for row in got] == np.argsort(-scores, kind="stable").tolist()
    assert close([row["score"] for row in got], sorted(scores, reverse=True))
    assert [row["text"] for row in got] == [TEXTS[row["index"]] for row in got]


def test_expanded_queries(folders: dict[str, Path], tmp_path: Path) -> None:
    """Their added tokens see the query and are not seen, for which the plain layers are needed."""
    encoder = Encoder.from_pretrained(folders["embedder"])
    vectors = MultiVectorModel(encoder, [projection(64, 16, seed=1)])
    filled = MultiVectorSettings(expansion=QueryExpansion(length=24))
    tokenizer = Tokenizer.from_pretrained(folders["embedder"])
    MultiVectorEmbedder(vectors, tokenizer, filled).save_pretrained(tmp_path / "expanded")
    model = load(tmp_path / "expanded", precision="float32")
    texts = [TEXTS[0], "", TEXTS[3]]
    expected = model.part(MultiVectorEmbedder).encode_query(texts)
    assert [len(each) for each in expected] == [24, 24, 24]
    with serving(Service([model])) as address, httpx.Client(base_url=address) as client:
        assert same(post(client, "/", inputs=texts, prompt_name="query"), expected)
        info = client.get("/info").json()
    assert info["model_type"] == {"embedding": {"pooling": "colbert"}}
    assert info["routes"] == [
        "/embed_all",
        "/rerank",
        "/v1/rerank",
        "/v2/rerank",
        "/tokenize",
        "/decode",
    ]


def test_what_cannot_be_is_refused(
    client: httpx.Client, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = text_of(400)
    path = "/vectors/embed_all"
    assert "query or document" in refused(client, path, 400, inputs="a", prompt_name="passage")
    assert "token ids" in refused(client, path, 400, inputs=[5, 6])
    assert "right" in refused(client, path, 400, inputs="a", truncation_direction="Left")
    assert "empty" in refused(client, path, 400, inputs=[])
    assert "256 tokens" in refused(client, path, 413, inputs=long)
    assert "32 tokens" in refused(client, path, 413, inputs=long, prompt_name="query")
    ranking = {"query": long, "texts": ["a"]}
    assert "query[0]" in refused(client, "/vectors/rerank", 413, **ranking)
    assert len(post(client, "/vectors/rerank", **ranking, truncate=True)) == 1
    assert refused(client, "/vectors/embed", 424, inputs="a")
    assert refused(client, "/vectors/tokenize", 400, inputs="a", prompt_name="query")
    monkeypatch.setattr(routes, "MAX_NUMBERS", 100)
    assert "numbers" in refused(client, path, 413, inputs=TEXTS)
    alone, _ = serve("vectors")
    assert len(post(alone, "/rerank", query="root", texts=TEXTS)) == len(TEXTS)
