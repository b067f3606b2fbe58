"""Pipelines of transformers, and sentence-transformers with its trainers, on accelerated models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.interop.conftest import Make
from torch import Tensor

from modernbert import accelerate, restore
from modernbert.interop.packed_models import is_accelerated

TEXTS = ["the square of 7 is 49", "not less", "the square of number 11 is 121, not less" * 4]

pytestmark = [
    pytest.mark.filterwarnings("default:::sentence_transformers"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument"),
]


def differences(first: Any, second: Any) -> float:
    """The largest difference of the numbers in two answers, which must agree in all else."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        return max((differences(first[key], second[key]) for key in first), default=0)
    if isinstance(first, list | tuple):
        assert len(first) == len(second)
        return max((differences(a, b) for a, b in zip(first, second, strict=True)), default=0)
    if isinstance(first, float | np.ndarray | np.floating | Tensor):
        return float(np.max(np.abs(np.asarray(first) - np.asarray(second))))
    assert first == second
    return 0


@pytest.mark.parametrize(
    ("task", "kind", "texts"),
    [
        ("fill-mask", "ForMaskedLM", ["the [MASK] of 7 is 49", "not [MASK] at all, not less"]),
        ("text-classification", "ForSequenceClassification", TEXTS),
        ("token-classification", "ForTokenClassification", TEXTS),
        ("feature-extraction", "Model", TEXTS),
    ],
)
def test_pipelines(
    transformers: Any, make: Make, tokenizer: Any, task: str, kind: str, texts: list[str]
) -> None:
    model = make(kind)
    run = transformers.pipeline(task, model, tokenizer=tokenizer, batch_size=len(texts))
    before = run(texts)
    accelerate(model)
    after = run(texts)
    if task == "feature-extraction":  # rows of the padding come along
        real = [len(tokenizer(text)["input_ids"]) for text in texts]
        before, after = (
            [rows[0][:n] for rows, n in zip(answer, real, strict=True)]
            for answer in (before, after)
        )
    assert differences(before, after) < 1e-5
    assert is_accelerated(run.model) and len(json.dumps(str(after))) > 100


@pytest.fixture(scope="module")
def saved_by_version_4(
    make: Make, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder as version 4 of transformers wrote it: no layer_types, no rope_parameters."""
    folder = tmp_path_factory.mktemp("version4")
    make("Model", classifier_pooling="mean").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for key in ("layer_types", "rope_parameters", "dtype"):
        del config[key]
    config |= {
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "layer_norm_eps": 1e-5,
        "torch_dtype": "float32",
        "transformers_version": "4.48.0",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def sentence_transformer(folder: Path, pooling: str = "mean") -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    step = Transformer(str(folder))
    width = 128
    return SentenceTransformer(modules=[step, Pooling(width, pooling)], device="cpu")


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
def test_encode(saved_by_version_4: Path, pooling: str) -> None:
    model = sentence_transformer(saved_by_version_4, pooling)
    before = model.encode(TEXTS, batch_size=3)
    assert accelerate(model) is model
    after = model.encode(TEXTS, batch_size=3)
    assert np.abs(before - after).max() < 1e-5
    assert np.abs(model.encode(TEXTS, batch_size=1) - before).max() < 1e-5
    tokens = model.encode(TEXTS, output_value="token_embeddings")
    restore(model)
    theirs = model.encode(TEXTS, output_value="token_embeddings")
    assert np.array_equal(model.encode(TEXTS, batch_size=3), before)
    for one, two in zip(tokens, theirs, strict=True):
        assert (one - two).abs().max() < 1e-5


def test_a_saved_sentence_transformer_is_as_before(
    saved_by_version_4: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    model = accelerate(sentence_transformer(saved_by_version_4))
    model.save(str(tmp_path), create_model_card=False)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [
        "ModernBertModel"
    ]
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    assert np.abs(loaded.encode(TEXTS) - model.encode(TEXTS)).max() < 1e-5


def losses(trainer: Any) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


OPTIONS = {
    "per_device_train_batch_size": 4,
    "max_steps": 5,
    "logging_steps": 1,
    "learning_rate": 1e-3,
    "report_to": [],
    "disable_tqdm": True,
    "save_strategy": "no",
    "use_cpu": True,
}
PAIRS = {
    "anchor": [f"the square of {i}" for i in range(20)],
    "positive": [f"number {i * i}, not less" for i in range(20)],
}


def test_its_trainer(saved_by_version_4: Path, tmp_path: Path) -> None:
    import datasets
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    def run(model: Any) -> list[float]:
        arguments = SentenceTransformerTrainingArguments(str(tmp_path), **OPTIONS)
        loss = MultipleNegativesRankingLoss(model)
        data = datasets.Dataset.from_dict(PAIRS)
        return losses(SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=loss))

    before = run(sentence_transformer(saved_by_version_4))
    model = accelerate(sentence_transformer(saved_by_version_4))
    first = model.encode(TEXTS)
    assert run(model) == pytest.approx(before, abs=2e-3)
    after = model.encode(TEXTS)  # of the trained weights, and not of those packed before
    assert np.abs(after - first).max() > 1e-3
    assert np.abs(restore(model).encode(TEXTS) - after).max() < 1e-5


def test_cross_encoder(saved_by_version_4: Path, tmp_path: Path) -> None:
    import datasets
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import (
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    def fresh() -> Any:
        torch.manual_seed(0)
        return CrossEncoder(str(saved_by_version_4), num_labels=1, device="cpu")

    def run(model: Any) -> list[float]:
        arguments = CrossEncoderTrainingArguments(str(tmp_path), **OPTIONS)
        data = datasets.Dataset.from_dict({**PAIRS, "label": [float(i % 2) for i in range(20)]})
        loss = BinaryCrossEntropyLoss(model)
        return losses(CrossEncoderTrainer(model, arguments, train_dataset=data, loss=loss))

    pairs = [(TEXTS[0], text) for text in TEXTS]
    theirs = fresh()
    model = accelerate(fresh())
    assert np.abs(theirs.predict(pairs) - model.predict(pairs)).max() < 1e-5
    assert run(model) == pytest.approx(run(theirs), abs=2e-3)
    assert np.abs(theirs.predict(pairs) - model.predict(pairs)).max() < 2e-3
