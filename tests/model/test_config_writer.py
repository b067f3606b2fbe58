"""Writing a config.json that all readers understand."""

from dataclasses import replace
from typing import Any

import pytest
from tests.model.examples import small_config

from modernbert.model.config import EncoderConfig, LayerKind, layer_kinds
from modernbert.model.config_file import classifier_fields, encoder_numbers
from modernbert.model.config_writer import global_every, published_config
from modernbert.word_splitting import WordSplitting

CONFIGS = [
    small_config(),
    EncoderConfig.preset("base"),
    EncoderConfig.preset("1b", global_theta=10_000.0),
    small_config(layer_kinds=("local", "global", "local")),
    small_config(layer_kinds=("global", "global", "local")),
    small_config(layer_kinds=("global",)),
    small_config(layer_kinds=("local",), window=1, norm_eps=1e-7, max_seqlen=9),
]


def written(config: EncoderConfig, **more: Any) -> dict[str, Any]:
    return published_config(config, architecture="ModernBertModel", **more)


@pytest.mark.parametrize("config", CONFIGS)
def test_there_and_back(config: EncoderConfig) -> None:
    assert EncoderConfig(**encoder_numbers(written(config))) == config


@pytest.mark.parametrize("config", CONFIGS)
def test_each_style_alone_says_it_all(config: EncoderConfig) -> None:
    published = written(config)
    version_4 = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
    version_5 = ("layer_types", "rope_parameters")
    without_4 = {key: value for key, value in published.items() if key not in version_4}
    assert EncoderConfig(**encoder_numbers(without_4)) == config
    without_5 = {key: value for key, value in published.items() if key not in version_5}
    if "global_attn_every_n_layers" in published:
        assert EncoderConfig(**encoder_numbers(without_5)) == config


def test_keys_that_other_readers_want() -> None:
    published = written(EncoderConfig.preset("base"))
    expected = {
        "architectures": ["ModernBertModel"],
        "attention_dropout": 0.0,
        "bos_token_id": 50281,
        "classifier_activation": "gelu",
        "classifier_pooling": "mean",
        "decoder_bias": True,
        "dtype": "float32",
        "eos_token_id": 50282,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160_000.0,
        "hidden_activation": "gelu",
        "initializer_cutoff_factor": 2.0,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-5,
        "local_attention": 128,
        "local_rope_theta": 10_000.0,
        "mask_token_id": 50284,
        "mlp_bias": False,
        "model_type": "modernbert",
        "norm_bias": False,
        "norm_eps": 1e-5,
        "sparse_prediction": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "unk_token_id": 50280,
    }
    assert expected.items() <= published.items()
    assert list(published) == sorted(published)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (layer_kinds(22), 3),
        (layer_kinds(7, global_every=2), 2),
        (layer_kinds(3, global_every=1), 1),
        (("global",), 3),
        (("global", "local"), 3),
        (("global", "local", "local", "local", "local"), 5),
        (("local",), None),
        (("global", "local", "global", "global"), None),
        (("global", "global", "local"), None),
    ],
)
def test_the_pattern_of_global_layers(kinds: tuple[LayerKind, ...], expected: int | None) -> None:
    assert global_every(kinds) == expected
    published = written(replace(small_config(), layer_kinds=kinds))
    assert published.get("global_attn_every_n_layers") == expected


def test_labels_there_and_back() -> None:
    for problem in ("single_label", "multi_label", "regression"):
        fields = {
            "labels": ("no", "yes", "ja"),
            "pooling": "mean",
            "problem": problem,
            "splitting": WordSplitting(whole=("U.S.", "Inc."), endings=("'s",)),
        }
        published = written(small_config(), classifier=fields)
        assert classifier_fields(published) == fields
        assert published["id2label"] == {"0": "no", "1": "yes", "2": "ja"}
    assert "id2label" not in written(small_config())
