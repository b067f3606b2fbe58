"""Models small enough to compute in a test, with the vocabulary of a tokenizer."""

from pathlib import Path
from typing import Any

from modernbert.model.config import EncoderConfig, layer_kinds
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize
from modernbert.tokenizer.tokenizer import Tokenizer

_IDS = ("mask_token_id", "cls_token_id", "sep_token_id", "pad_token_id", "unk_token_id")


def config_for(tokenizer: Tokenizer, *, num_layers: int = 2, **sizes: Any) -> EncoderConfig:
    """The config of a model for a tokenizer: one head of 64 and two layers, unless given."""
    chosen = {"hidden_size": 64, "num_heads": 1, "intermediate_size": 64, "max_seqlen": 64, **sizes}
    ids = {name: getattr(tokenizer, name) for name in ("vocab_size", *_IDS)}
    return EncoderConfig.preset("tiny", **ids, **chosen, layer_kinds=layer_kinds(num_layers))


def write_masked_model(folder: Path, tokenizer: Tokenizer, **sizes: Any) -> Path:
    """A masked language model that has learnt nothing, and its tokenizer."""
    model = MaskedLanguageModel(config_for(tokenizer, **sizes))
    initialize(model, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
