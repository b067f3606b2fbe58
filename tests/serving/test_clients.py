"""Other people's clients against the server."""

from typing import Any

import numpy as np
import pytest
from tests.serving.conftest import Serve, text_of

from modernbert.inference.classifier import Classifier
from modernbert.inference.embedder import Embedder
from modernbert.inference.fill_mask import FillMask
from modernbert.inference.tagger import Tagger
from modernbert.serving.models import ServedModel

huggingface_hub = pytest.importorskip("huggingface_hub")
openai = pytest.importorskip("openai")

TEXTS = [text_of(4), text_of(30, 1)]


@pytest.fixture(scope="session")
def expected(models: list[ServedModel]) -> Any:
    return models[0].part(Embedder).encode(TEXTS, normalize_embeddings=True)


def client_of(serve: Serve, *names: str, **settings: Any) -> Any:
    client, _ = serve(*names, **settings)
    return huggingface_hub.InferenceClient(str(client.base_url).rstrip("/"))


def test_openai(serve: Serve, expected: np.ndarray) -> None:
    client, _ = serve(api_key="secret")
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="secret") as asking:
        answer = asking.embeddings.create(model="embedder", input=TEXTS)  # asks for base64
        assert np.allclose([each.embedding for each in answer.data], expected, atol=2e-6)
        plain = asking.embeddings.create(model="embedder", input=TEXTS[0], encoding_format="float")
        assert np.allclose(plain.data[0].embedding, expected[0], atol=2e-6)
        short = asking.embeddings.create(model="embedder", input=TEXTS, dimensions=8)
        assert len(short.data[0].embedding) == 8
        assert answer.usage.total_tokens > 0
        assert "embedder" in [model.id for model in asking.models.list()]
        with pytest.raises(openai.BadRequestError) as refused:
            asking.embeddings.create(model="embedder", input=[])
        assert "input" in refused.value.message
    with (
        openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="wrong") as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.embeddings.create(model="embedder", input=TEXTS)


def test_2048_texts_of_openai(serve: Serve) -> None:
    client, _ = serve("embedder")
    texts = [f"the number {index}" for index in range(2048)]
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none") as asking:
        answer = asking.embeddings.create(model="embedder", input=texts)
        assert [each.index for each in answer.data] == list(range(2048))
        alone = asking.embeddings.create(model="embedder", input=texts[-1])
        assert np.allclose(answer.data[-1].embedding, alone.data[0].embedding, atol=2e-6)
        assert asking.models.retrieve("embedder").id == "embedder"


def test_langchain(serve: Serve, expected: np.ndarray) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")
    client, _ = serve("embedder")
    embeddings = langchain_openai.OpenAIEmbeddings(
        base_url=f"{client.base_url}/v1",
        api_key="none",
        model="embedder",
        check_embedding_ctx_length=False,
    )
    assert np.allclose(embeddings.embed_documents(TEXTS), expected, atol=2e-6)
    assert np.allclose(embeddings.embed_query(TEXTS[0]), expected[0], atol=2e-6)


def test_hub_embeddings(serve: Serve, expected: np.ndarray) -> None:
    client = client_of(serve, "embedder")
    assert np.allclose(client.feature_extraction(TEXTS), expected, atol=2e-6)
    one = client.feature_extraction(TEXTS[0], normalize=True, truncate=True)
    assert np.allclose(one, expected[:1], atol=2e-6)
    left = client.feature_extraction(
        text_of(400), truncate=True, truncation_direction="left", prompt_name="query"
    )
    assert left.shape == (1, 64)


def test_hub_similarity(serve: Serve, expected: np.ndarray) -> None:
    client = client_of(serve, "embedder")
    (score,) = client.sentence_similarity(TEXTS[0], [TEXTS[1]])
    assert score == pytest.approx(float(expected[0] @ expected[1]), abs=1e-5)


def test_hub_classifiers(serve: Serve, models: list[ServedModel]) -> None:
    by_name = {model.name: model for model in models}
    classifier, tagger = by_name["classifier"].part(Classifier), by_name["tagger"].part(Tagger)
    assert classifier is not None and tagger is not None
    best = client_of(serve, "classifier").text_classification(TEXTS[0])
    assert [each.label for each in best] == [each.label for each in classifier(TEXTS[0])]
    (top,) = client_of(serve, "classifier").text_classification(
        TEXTS[0], top_k=1, function_to_apply="none"
    )
    (logits,) = next(iter(classifier.logits([TEXTS[0]])))
    assert top.score == pytest.approx(float(logits.max()), abs=1e-5)
    found = client_of(serve, "tagger").token_classification(TEXTS[1])
    assert [each.entity_group for each in found] == [each.label for each in tagger(TEXTS[1])]


def test_hub_fill_mask(serve: Serve, models: list[ServedModel]) -> None:
    filler = {model.name: model for model in models}["masked"].part(FillMask)
    assert filler is not None
    found = client_of(serve, "masked").fill_mask("the [MASK] of 12", top_k=3)
    assert [each.token for each in found] == [
        each.token_id for each in filler("the [MASK] of 12", 3)[0]
    ]
