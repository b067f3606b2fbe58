"""`SparseEmbedder` against sentence-transformers' SparseEncoder, both ways."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.inference.conftest import shaken

from modernbert.batch import PackedBatch
from modernbert.errors import InputError, ModelFolderError
from modernbert.inference.sparse_embedder import SparseEmbedder, SparseSettings
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import MaskedLanguageModel, token_weights
from modernbert.model.initialize import initialize
from modernbert.tokenizer.tokenizer import Tokenizer

TEXTS = ["the square of number 3", "", "Root AND sum " * 20, "not less"]

pytestmark = pytest.mark.filterwarnings("ignore:::sentence_transformers")


@pytest.fixture(scope="module")
def masked(
    tokenizer: Tokenizer, config: EncoderConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("masked")
    model = initialize(MaskedLanguageModel(config), seed=0)
    shaken(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder, model_max_length=32)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pooling", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_a_folder_of_sentence_transformers(
    masked: Path, tmp_path: Path, pooling: Any, activation: Any
) -> None:
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    theirs = SparseEncoder(str(masked), device="cpu", max_active_dims=40)
    steps = [theirs[0], SpladePooling(pooling, activation)]
    theirs = SparseEncoder(
        modules=steps, device="cpu", max_active_dims=40, prompts={"query": "sum: "}
    )
    theirs.save_pretrained(str(tmp_path))
    ours = SparseEmbedder.from_pretrained(tmp_path, precision="float32")
    for side in ("encode", "encode_query", "encode_document"):
        expected = getattr(theirs, side)(TEXTS, show_progress_bar=False).to_dense().numpy()
        got = ours.to_dense(getattr(ours, side)(TEXTS))
        assert np.allclose(got, expected, atol=1e-5)
        assert ((got > 0).sum(1) <= 40).all() and (got > 0).any(1).all()


@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers_loads_what_is_saved(masked: Path, tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    loaded = SparseEmbedder(
        MaskedLanguageModel.from_pretrained(masked),
        Tokenizer.from_pretrained(masked),
        SparseSettings(
            pooling="sum",
            max_seqlen=16,
            prompts={"query": "number: "},
            default_prompt_name="query",
        ),
    )
    loaded.save_pretrained(tmp_path / "ours")
    theirs = SparseEncoder(str(tmp_path / "ours"), device="cpu")
    expected = theirs.encode(TEXTS, show_progress_bar=False).to_dense().numpy()
    assert np.allclose(loaded.to_dense(loaded.encode(TEXTS)), expected, atol=1e-5)
    again = SparseEmbedder.from_pretrained(tmp_path / "ours", precision="float32")
    assert again.settings == loaded.settings
    again.save_pretrained(tmp_path / "again")  # of a model that is packed for inference


def test_weights_do_not_depend_on_neighbours_and_have_gradients(config: EncoderConfig) -> None:
    model = initialize(MaskedLanguageModel(config), seed=0)
    shaken(model)
    sequences = [[5, 6, 7], list(range(5, 36)), [9] * 30] * 9  # more rows than are held at once
    batch = PackedBatch.from_sequences(sequences)
    weights = token_weights(model, model.encoder(batch), batch)
    for row, sequence in zip(weights[:3], sequences, strict=False):
        alone = PackedBatch.from_sequences([sequence])
        logits = model(alone)
        assert torch.allclose(row, logits.amax(0).relu().log1p(), atol=1e-5)
    weights.sum().backward()
    assert model.decoder_bias.grad is not None and model.decoder_bias.grad.any()


def test_products_and_names(masked: Path) -> None:
    embedder = SparseEmbedder(
        MaskedLanguageModel.from_pretrained(masked), Tokenizer.from_pretrained(masked)
    )
    vectors = embedder.encode(TEXTS[:2], max_active_dims=3)
    assert [len(vector.weights) for vector in vectors] == [3, 3]
    assert embedder.similarity(vectors[:1], vectors)[0, 0] == pytest.approx(
        float((vectors[0].weights ** 2).sum())
    )
    named = embedder.tokens(vectors[0], top_k=2)
    assert len(named) == 2 and list(named.values()) == sorted(named.values(), reverse=True)
    with pytest.raises(InputError, match="max_active_dims: got 0"):
        embedder.encode(TEXTS, max_active_dims=0)
    with pytest.raises(InputError, match="no_such: no such option"):
        embedder.encode(TEXTS, no_such=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("1_SpladePooling/config.json", {"pooling_strategy": "mean"}, "pooling_strategy: got 'mea"),
        ("1_SpladePooling/config.json", {"chunk": 3}, "unknown key 'chunk'"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "cosine"}, "similarity_fn_na"),
        ("config_sentence_transformers.json", {"prompts": {"query": 3}}, r"prompts\.query: got 3"),
        ("sentence_bert_config.json", {"max_seq_length": "8"}, "max_seq_length: got '8'"),
        ("modules.json", [], "expected a sparse embedding model"),
    ],
)
def test_what_is_not_honoured_is_refused(
    masked: Path, tmp_path: Path, name: str, content: Any, said: str
) -> None:
    embedder = SparseEmbedder(
        MaskedLanguageModel.from_pretrained(masked), Tokenizer.from_pretrained(masked)
    )
    embedder.save_pretrained(tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ModelFolderError, match=said):
        SparseEmbedder.from_pretrained(tmp_path)
