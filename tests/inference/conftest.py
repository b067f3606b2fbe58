"""Tiny models with a tokenizer, of sizes that every set of kernels takes."""

from pathlib import Path

import pytest
import torch
from tests.small_models import config_for

from modernbert.model.config import EncoderConfig
from modernbert.model.heads import ClassifierSettings, SequenceClassifier, TokenClassifier
from modernbert.model.initialize import initialize
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.tokenizer.train import train

MAX_SEQLEN = 32


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    texts = [f"the square of number {i} is {i * i}, not less." for i in range(99)]
    return train(texts, vocab_size=448)


@pytest.fixture(scope="session")
def config(tokenizer: Tokenizer) -> EncoderConfig:
    return config_for(tokenizer, num_layers=4, max_seqlen=MAX_SEQLEN)


def shaken(model: torch.nn.Module) -> None:
    """Move the weights away from their first values, so that outputs differ clearly."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def save(model: SequenceClassifier | TokenClassifier, tokenizer: Tokenizer, folder: Path) -> Path:
    shaken(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def classifier_folder(
    tokenizer: Tokenizer, config: EncoderConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    settings = ClassifierSettings(labels=("bad", "good", "fair"), pooling="mean")
    model = initialize(SequenceClassifier(config, settings), seed=0)
    return save(model, tokenizer, tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="session")
def reranker_folder(
    tokenizer: Tokenizer, config: EncoderConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    settings = ClassifierSettings(labels=("relevance",), problem="regression")
    model = initialize(SequenceClassifier(config, settings), seed=0)
    return save(model, tokenizer, tmp_path_factory.mktemp("reranker"))


@pytest.fixture(scope="session")
def tagger_folder(
    tokenizer: Tokenizer, config: EncoderConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    settings = ClassifierSettings(labels=("O", "B-NUM", "I-NUM", "B-WORD", "I-WORD"))
    model = initialize(TokenClassifier(config, settings), seed=0)
    return save(model, tokenizer, tmp_path_factory.mktemp("tagger"))
