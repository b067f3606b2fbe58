"""The table of foreign names, there and back."""

import pytest
import torch
from tests.model.examples import small_config

from modernbert.model.encoder import Encoder
from modernbert.model.heads import ClassifierSettings, MaskedLanguageModel, SequenceClassifier
from modernbert.model.pretrained import belongs_to_a_head, from_foreign, to_foreign

PUBLISHED = [
    "model.embeddings.tok_embeddings.weight",
    "model.embeddings.norm.weight",
    "model.layers.0.attn.Wqkv.weight",
    "model.layers.0.attn.Wo.weight",
    "model.layers.0.mlp_norm.weight",
    "model.layers.0.mlp.Wi.weight",
    "model.layers.0.mlp.Wo.weight",
    "model.layers.1.attn_norm.weight",
    "model.layers.1.attn.Wqkv.weight",
    "model.layers.1.attn.Wo.weight",
    "model.layers.1.mlp_norm.weight",
    "model.layers.1.mlp.Wi.weight",
    "model.layers.1.mlp.Wo.weight",
    "model.final_norm.weight",
]


@pytest.fixture
def own_names() -> list[str]:
    config = small_config(layer_kinds=("global", "local"))
    with torch.device("meta"):
        return [name for name, _ in MaskedLanguageModel(config).named_parameters()]


def test_ours_become_the_published_ones(own_names: list[str]) -> None:
    head = ["head.dense.weight", "head.norm.weight", "decoder.bias"]
    assert sorted(map(to_foreign, own_names)) == sorted(PUBLISHED + head)


def test_an_encoder_alone_has_no_prefix() -> None:
    with torch.device("meta"):
        names = Encoder(small_config(layer_kinds=("global", "local"))).state_dict()
    foreign = [to_foreign(f"encoder.{name}", alone=True) for name in names]
    assert sorted(foreign) == sorted(name.removeprefix("model.") for name in PUBLISHED)


@pytest.mark.parametrize("alone", [False, True])
def test_there_and_back(own_names: list[str], alone: bool) -> None:
    settings = ClassifierSettings(labels=("a", "b"))
    with torch.device("meta"):
        classifier = SequenceClassifier(small_config(), settings)
    for name in [*own_names, *classifier.state_dict()]:
        if not (alone and belongs_to_a_head(name)):
            assert from_foreign(to_foreign(name, alone=alone)) == name


def test_which_names_belong_to_a_head(own_names: list[str]) -> None:
    heads = [name for name in own_names if belongs_to_a_head(name)]
    assert sorted(heads) == ["decoder_bias", "head.dense.weight", "head.norm.weight"]
    assert belongs_to_a_head(from_foreign("decoder.weight"))
    assert belongs_to_a_head(from_foreign("classifier.bias"))


def test_unknown_names_stay() -> None:
    assert from_foreign("bert.pooler.weight") == "bert.pooler.weight"
