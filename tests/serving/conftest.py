"""Tiny models of every kind behind a live server, and a client for it."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
import torch
from tests.small_models import config_for
from torch import nn

from modernbert.inference.embedder import Embedder
from modernbert.inference.embedder_folder import EmbedderSettings
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.multi_vector_inputs import MultiVectorSettings
from modernbert.model.config import EncoderConfig
from modernbert.model.encoder import Encoder
from modernbert.model.heads import (
    ClassifierSettings,
    MaskedLanguageModel,
    SequenceClassifier,
    SpanClassifier,
    TokenClassifier,
)
from modernbert.model.initialize import initialize
from modernbert.model.multi_vector import MultiVectorModel, projection
from modernbert.serving.models import ServedModel, load
from modernbert.serving.server import Server, bind
from modernbert.serving.service import Service
from modernbert.serving.settings import ServingSettings
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.tokenizer.train import train

MAX_SEQLEN = 256
WORDS = ["the", "square", "of", "number", "is", "not", "less", "root", "and", "sum", "12", "34"]


def text_of(num_words: int, seed: int = 0) -> str:
    return " ".join(WORDS[(seed + 7 * i + i * i) % len(WORDS)] for i in range(num_words))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train(
        [f"the square of number {i} is {i * i}, not less." for i in range(99)], vocab_size=448
    )


@pytest.fixture(scope="session")
def config(tokenizer: Tokenizer) -> EncoderConfig:
    return config_for(tokenizer, num_layers=4, max_seqlen=MAX_SEQLEN)


def shaken(model: nn.Module) -> Any:
    """Weights away from their first values, so that outputs differ clearly."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


@pytest.fixture(scope="session")
def folders(
    tokenizer: Tokenizer, config: EncoderConfig, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A folder of each kind, by the name that it is served as."""
    home = tmp_path_factory.mktemp("models")
    labels = ClassifierSettings(labels=("bad", "good", "fair"), pooling="mean")
    relevance = ClassifierSettings(labels=("relevance",), problem="regression")
    tags = ClassifierSettings(labels=("O", "B-NUM", "I-NUM", "B-WORD", "I-WORD"))
    models = {
        "classifier": SequenceClassifier(config, labels),
        "reranker": SequenceClassifier(config, relevance),
        "tagger": TokenClassifier(config, tags),
        "answerer": SpanClassifier(config, ClassifierSettings(labels=("start", "end"))),
        "masked": MaskedLanguageModel(config),
    }
    for name, model in models.items():
        shaken(initialize(model, seed=0)).save_pretrained(home / name)
        tokenizer.save_pretrained(home / name)
    settings = EmbedderSettings(prompts={"query": "number: "}, pool_prompt=False)
    encoder = shaken(initialize(Encoder(config), seed=0))
    Embedder(encoder, tokenizer, settings).save_pretrained(home / "embedder")
    marked = MultiVectorSettings(
        prompts={"query": "[unused0]", "document": "[unused1]"},
        query_max_seqlen=32,
        skiplist=(".", ","),
    )
    vectors = MultiVectorModel(encoder, [projection(64, 16, seed=1)])
    MultiVectorEmbedder(vectors, tokenizer, marked).save_pretrained(home / "vectors")
    return {path.name: path for path in sorted(home.iterdir())}


@pytest.fixture(scope="session")
def models(folders: dict[str, Path]) -> list[ServedModel]:
    """The embedder comes first, so that it is the default."""
    order = ["embedder", *sorted(set(folders) - {"embedder"})]
    return [load(folders[name], precision="float32") for name in order]


@contextmanager
def serving(service: Service) -> Iterator[str]:
    """A server in a thread; gives its address."""
    listener, ready = bind("127.0.0.1", 0), Event()
    server = Server(service, listener, on_ready=ready.set)
    thread = Thread(target=server.run)
    service.start()
    thread.start()
    try:
        assert ready.wait(20)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        service.close()


Serve = Callable[..., Any]


@pytest.fixture
def serve(models: list[ServedModel]) -> Iterator[Serve]:
    """Start a server with settings of one's own, and give a client for it."""
    with_exits: list[Any] = []

    def start(*names: str, **settings: Any) -> tuple[httpx.Client, Service]:
        chosen = [model for model in models if not names or model.name in names]
        service = Service(chosen, ServingSettings(**settings))
        running = serving(service)
        client = httpx.Client(base_url=running.__enter__(), timeout=30)
        with_exits.append((client, running))
        return client, service

    yield start
    for client, running in with_exits:
        client.close()
        running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def address(models: list[ServedModel]) -> Iterator[str]:
    """One server with all models, for tests that leave it as it was."""
    with serving(Service(models)) as address:
        yield address


@pytest.fixture(scope="session")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=30) as client:
        yield client


def connect(client: httpx.Client) -> socket.socket:
    """A bare connection to the server of a client."""
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=20)
