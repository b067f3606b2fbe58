"""Twins of published ModernBERTs behind the server, which answers as the classes do."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.published.conftest import TEXTS
from tests.published.twins import TWINS, Twin
from tests.serving.conftest import serving

import modernbert
from modernbert.serving.models import load
from modernbert.serving.service import Service

pytestmark = pytest.mark.filterwarnings("ignore")

QUESTION = "What is the capital of France?"


def served_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


@pytest.fixture(scope="module")
def client(twin_folder: Callable[[str], Path]) -> Iterator[httpx.Client]:
    """A server of all twins at once."""
    models = [
        load(twin_folder(name), name=served_name(name), precision="float32") for name in TWINS
    ]
    with (
        serving(Service(models)) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        yield client


@pytest.fixture
def ask(client: httpx.Client, name: str) -> Callable[..., Any]:
    def ask(route: str, **body: Any) -> Any:
        answer = client.post(f"/{served_name(name)}/{route}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


def test_it_is_served(folder: Path, twin: Twin, ask: Callable[..., Any]) -> None:
    model: Any = modernbert.load(folder, precision="float32")
    if twin.steps == "splade":
        (weights, *_) = ask("embed_sparse", inputs=TEXTS)
        expected = model.encode(TEXTS)[0]
        assert {each["index"] for each in weights} == set(expected.token_ids.tolist())
    elif twin.head == "ForMaskedLM":
        text = f"The {model.tokenizer.mask_token} of France"
        ((expected, *_),) = model(text)
        assert ask("fill-mask", inputs=text)[0]["token"] == expected.token_id
    elif twin.verb == "rerank":
        ranks = ask("rerank", query=QUESTION, texts=TEXTS)
        scores = model.scores([(QUESTION, text) for text in TEXTS])
        for each in ranks:
            assert each["score"] == pytest.approx(scores[each["index"]], abs=1e-4)
    elif twin.steps == "pylate":
        vectors = ask("embed_all", inputs=TEXTS)
        for got, expected in zip(vectors, model.encode_document(TEXTS), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-4)
    elif twin.verb == "retrieve":
        got = ask("embed", inputs=TEXTS, normalize=False)
        np.testing.assert_allclose(got, model.encode(TEXTS), atol=1e-4)
    elif twin.verb == "tag":
        found = ask("tag", inputs=TEXTS[0])
        places = [(each.label, each.start) for each in model(TEXTS[0])]
        assert [(each["entity_group"], each["start"]) for each in found] == places
    elif twin.verb == "answer":
        found = ask("answer", inputs={"question": QUESTION, "context": TEXTS[0]})
        assert found["answer"] in TEXTS[0]
    else:
        (first, *_) = ask("predict", inputs=[[text] for text in TEXTS])
        assert first[0]["label"] == model(TEXTS)[0][0].label
