"""Configs that differ from the paper's, as published models have them: equal to transformers."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.model.examples import largest_difference, ragged, with_random_weights
from tests.model.test_transformers_parity import as_theirs

from modernbert.batch import PackedBatch
from modernbert.export.source import padded_hidden
from modernbert.interop import accelerate as accelerating
from modernbert.model.config import EncoderConfig
from modernbert.model.encoder import Encoder
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize
from modernbert.model.rope_scaling import RopeScaling

WITHIN = 2e-5

YARN = RopeScaling(kind="yarn", factor=4.0, original_max_seqlen=32, attention_factor=1.14)

LAYOUTS: dict[str, dict[str, Any]] = {
    "silu (Granite multilingual)": {"activation": "silu", "head_activation": "silu"},
    "gelu by tanh": {"activation": "gelu_tanh", "head_activation": "gelu_tanh"},
    "relu": {"activation": "relu", "head_activation": "gelu"},
    "squared relu": {"activation": "relu2", "head_activation": "relu2"},
    "a linear head": {"head_activation": "linear"},
    "a head with tanh": {"head_activation": "tanh"},
    "biases": {"attention_bias": True, "mlp_bias": True, "head_bias": True},
    "norms with biases": {"norm_bias": True},
    "a decoder of its own": {"tied_decoder": False},
    "thetas of 160,000 (mmBERT)": {"global_theta": 160_000.0, "local_theta": 160_000.0},
    "theta of 80,000 (Granite)": {"global_theta": 80_000.0},
    "yarn (mmBERT-32k)": {"global_scaling": YARN, "local_scaling": YARN, "max_seqlen": 128},
    "yarn in global layers alone": {
        "global_scaling": RopeScaling(
            kind="yarn", factor=8.0, original_max_seqlen=16, beta_fast=16.0
        ),
    },
    "linear": {"global_scaling": RopeScaling(kind="linear", factor=2.0)},
    "32,768 tokens": {"max_seqlen": 32_768},
}


@pytest.fixture(params=LAYOUTS)
def model(request: pytest.FixtureRequest) -> MaskedLanguageModel:
    sizes = {"hidden_size": 128, "num_heads": 2, "intermediate_size": 192}
    config = EncoderConfig.preset("tiny", vocab_size=512, **sizes, **LAYOUTS[request.param])
    return with_random_weights(MaskedLanguageModel(config), gain=0.7)


def test_equal_to_transformers(
    model: MaskedLanguageModel, transformers: ModuleType, tmp_path: Path
) -> None:
    theirs = as_theirs(model, transformers, tmp_path)
    token_ids, present = ragged([90, 3, 40], vocab_size=512)
    with torch.no_grad():
        output = theirs(token_ids, attention_mask=present.long(), output_hidden_states=True)
        batch = PackedBatch.from_padded(token_ids, present)
        hidden = model.encoder(batch)
        assert largest_difference(hidden, output.hidden_states[-1][present]) < WITHIN
        assert largest_difference(model(batch), output.logits[present]) < WITHIN
        padded = padded_hidden(model.encoder, token_ids, present.long())
        assert largest_difference(padded[present], hidden) < WITHIN


def test_saved_and_read_again(model: MaskedLanguageModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = MaskedLanguageModel.from_pretrained(tmp_path)
    assert again.config == model.config
    names = dict(model.named_parameters())
    assert names.keys() == dict(again.named_parameters()).keys()
    assert all(torch.equal(names[name], value) for name, value in again.named_parameters())
    counted = sum(p.numel() for p in model.parameters())
    assert counted == model.config.num_parameters(head=True)
    alone = sum(p.numel() for p in Encoder(model.config).parameters())
    assert alone == model.config.num_parameters(head=False)


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_inference_computes_the_same(
    model: MaskedLanguageModel, tmp_path: Path, precision: Any
) -> None:
    batch = PackedBatch.from_sequences([list(range(5, 60)), [7, 8, 9]])
    with torch.no_grad():
        expected = model.encoder(batch)
        model.save_pretrained(tmp_path)
        ready = Encoder.from_pretrained(tmp_path, precision=precision)
        found = ready(batch).float()
    similarity = torch.cosine_similarity(found, expected, dim=1).min()
    assert similarity > (0.999999 if precision == "float32" else 0.995)


def test_a_model_of_theirs_is_accelerated(
    model: MaskedLanguageModel, transformers: ModuleType, tmp_path: Path
) -> None:
    theirs = as_theirs(model, transformers, tmp_path)
    token_ids, present = ragged([70, 9], vocab_size=512)
    inputs = {"input_ids": token_ids, "attention_mask": present.long()}
    with torch.no_grad():
        expected = theirs(**inputs).logits[present]
        found = accelerating.accelerate(theirs)(**inputs).logits[present]
    assert largest_difference(found, expected) < WITHIN


def test_gradients_reach_every_parameter(model: MaskedLanguageModel) -> None:
    model = initialize(model, seed=1)
    model(PackedBatch.from_sequences([list(range(5, 40))])).square().mean().backward()
    without = [name for name, value in model.named_parameters() if value.grad is None]
    assert without == []
