"""The numbers of a config: published sizes, and what is refused before anything is made."""

from typing import Any

import pytest
import torch

from modernbert.errors import ConfigError
from modernbert.model.config import PRESETS, EncoderConfig, layer_kinds
from modernbert.model.encoder import Encoder
from modernbert.model.heads import MaskedLanguageModel

PUBLISHED = {  # layers, hidden size, GLU width, heads
    "17m": (7, 256, 384, 4),
    "32m": (10, 384, 576, 6),
    "68m": (19, 512, 768, 8),
    "base": (22, 768, 1152, 12),
    "150m": (22, 768, 1152, 12),
    "large": (28, 1024, 2624, 16),
    "400m": (28, 1024, 2624, 16),
    "1b": (28, 1792, 3840, 28),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    config = EncoderConfig.preset(name)
    sizes = (config.num_layers, config.hidden_size, config.intermediate_size, config.num_heads)
    assert sizes == PUBLISHED[name]
    assert config.head_size == 64
    assert config.vocab_size == 50_368 == 64 * 787


@pytest.mark.parametrize(
    ("name", "with_head", "alone"),
    [("base", 149_655_232, 149_014_272), ("large", 395_881_664, 394_781_696)],
)
def test_published_parameter_counts(name: str, with_head: int, alone: int) -> None:
    config = EncoderConfig.preset(name)
    with torch.device("meta"):
        model = MaskedLanguageModel(config)
    assert sum(p.numel() for p in model.parameters()) == with_head
    assert sum(p.numel() for p in model.encoder.parameters()) == alone


@pytest.mark.parametrize("name", PRESETS)
def test_counts_parameters_without_building(name: str) -> None:
    config = EncoderConfig.preset(name)
    with torch.device("meta"):
        model, encoder = MaskedLanguageModel(config), Encoder(config)
    assert sum(p.numel() for p in model.parameters()) == config.num_parameters(head=True)
    assert sum(p.numel() for p in encoder.parameters()) == config.num_parameters(head=False)


def test_every_third_layer_is_global() -> None:
    base = EncoderConfig.preset("base")
    kinds = base.layer_kinds
    assert [i for i, kind in enumerate(kinds) if kind == "global"] == [0, 3, 6, 9, 12, 15, 18, 21]
    assert EncoderConfig.preset("large").layer_kinds.count("global") == 10
    assert layer_kinds(4, global_every=1) == ("global",) * 4


def test_theta_of_a_kind() -> None:
    config = EncoderConfig(global_theta=7.0, local_theta=5.0)
    assert (config.theta("global"), config.theta("local")) == (7.0, 5.0)


def test_a_preset_with_changes() -> None:
    config = EncoderConfig.preset("tiny", vocab_size=512, window=8, pad_token_id=100)
    assert (config.vocab_size, config.window, config.num_layers) == (512, 8, 6)
    ids = (config.unk_token_id, config.cls_token_id, config.sep_token_id, config.mask_token_id)
    assert ids == (0, 1, 2, 4) and config.pad_token_id == 100
    assert EncoderConfig.preset("tiny").mask_token_id == 50_284


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 10**9}, r"^hidden_size: got 1000000000, expected 1 to 65536$"),
        ({"vocab_size": 10**12}, "^vocab_size"),
        ({"vocab_size": 0}, "^vocab_size"),
        ({"intermediate_size": -1}, "^intermediate_size"),
        ({"num_heads": 0}, "^num_heads"),
        ({"window": 0}, "^window"),
        ({"max_seqlen": 1 << 40}, "^max_seqlen"),
        ({"num_heads": 7}, "hidden_size 768 is not a multiple of num_heads 7"),
        ({"num_heads": 256}, "rotary positions need an even head size"),
        ({"layer_kinds": ()}, "got 0 layers"),
        ({"layer_kinds": ("local",) * 2000}, "got 2000 layers, expected 1 to 1024"),
        ({"layer_kinds": ("global", "full")}, "layer_kinds: got 'full'"),
        ({"global_theta": 0.0}, "^global_theta"),
        ({"local_theta": float("nan")}, "^local_theta"),
        ({"global_theta": float("inf")}, "^global_theta"),
        ({"norm_eps": 0.0}, "^norm_eps"),
        ({"norm_eps": 2.0}, "^norm_eps"),
        ({"mask_token_id": 50_368}, r"^mask_token_id: got 50368, .*0 to 50367$"),
        ({"pad_token_id": -1}, "^pad_token_id"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EncoderConfig(**changes)


def test_refuses_presets_and_numbers_that_are_none() -> None:
    with pytest.raises(ConfigError, match=r"^preset: got 'huge', expected one of tiny, 17m"):
        EncoderConfig.preset("huge")
    with pytest.raises(ConfigError, match="'num_layers' is not a number of the config"):
        EncoderConfig.preset("tiny", num_layers=3)
