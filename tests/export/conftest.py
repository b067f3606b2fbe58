"""Tiny models of every kind in folders, and their exports, each made once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from modernbert.inference.embedder import Embedder
from modernbert.inference.embedder_folder import EmbedderSettings
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
from modernbert.model.pretrained import SavedModel
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.tokenizer.train import train

KINDS = ("embedder", "masked-lm", "classifier", "reranker", "tagger", "reader")
Folder = Callable[[str], Path]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    texts = [f"the square of number {i} is {i * i}, not less." for i in range(99)]
    return train(texts, vocab_size=448)


@pytest.fixture(scope="session")
def model_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """`model_folder("tagger")`: with a window of 64, and a local and a global layer."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            write(_model(kind, tokenizer), kind, tokenizer, made[kind])
        return made[kind]

    return folder


def write(model: SavedModel, kind: str, tokenizer: Tokenizer, folder: Path) -> None:
    initialize(model, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    if kind == "embedder":
        assert isinstance(model, Encoder)
        settings = EmbedderSettings(prompts={"query": "number "}, max_seqlen=256)
        Embedder(model, tokenizer, settings).save_pretrained(folder)
    else:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder, model_max_length=256)


def _model(kind: str, tokenizer: Tokenizer) -> SavedModel:
    names = ("unk_token_id", "cls_token_id", "sep_token_id", "pad_token_id", "mask_token_id")
    config = EncoderConfig.preset(
        "tiny",
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        num_heads=2,
        intermediate_size=64,
        layer_kinds=("global", "local"),
        max_seqlen=512,
        **{name: getattr(tokenizer, name) for name in names},
    )
    labels = ("bad", "good", "fair")
    settings = ClassifierSettings(labels=labels, pooling="mean")
    one = ClassifierSettings(labels=("relevance",), problem="regression")
    return {
        "embedder": lambda: Encoder(config),
        "masked-lm": lambda: MaskedLanguageModel(config),
        "classifier": lambda: SequenceClassifier(config, settings),
        "reranker": lambda: SequenceClassifier(config, one),
        "tagger": lambda: TokenClassifier(config, settings),
        "reader": lambda: SpanClassifier(config, ClassifierSettings(labels=("begin", "end"))),
    }[kind]()


@pytest.fixture(scope="session")
def exported(model_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """`exported("tagger")`: its ONNX folder."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        from modernbert.export.onnx_export import export_onnx

        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(f"{kind}-onnx") / "out"
            export_onnx(model_folder(kind), made[kind])
        return made[kind]

    return folder
