"""Small configs, weights that make every part matter, and ragged batches."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from modernbert.batch import PackedBatch
from modernbert.model.config import EncoderConfig

M = TypeVar("M", bound=nn.Module)

BOUNDARY_LENGTHS = [1, 2, 3, 31, 32, 33, 63, 64, 65, 95, 96, 97, 127, 128, 129, 191, 192, 193]
"""Lengths at and beside the borders of blocks and windows."""


def small_config(**changes: Any) -> EncoderConfig:
    """Two heads of 16 in four layers, with a window of 4, which short sequences outgrow."""
    numbers = {
        "vocab_size": 128,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "layer_kinds": ("global", "local", "local", "global"),
        "window": 4,
        "unk_token_id": 0,
        "cls_token_id": 1,
        "sep_token_id": 2,
        "pad_token_id": 3,
        "mask_token_id": 4,
    }
    return EncoderConfig(**{**numbers, **changes})


@torch.no_grad()
def with_random_weights(module: M, *, seed: int = 0, gain: float = 1.0) -> M:
    """Weights that make every part of a model matter as much as any other.

    Those of a fresh model would hide mistakes: attention is flat, norms are 1 and each layer adds
    little to the residual stream.

    gain: less than 1 for deep models, in which float32's rounding adds up.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        sigma = 0.1 if parameter.ndim == 1 else gain * parameter.shape[1] ** -0.5
        parameter.normal_(0.0, sigma, generator=generator)
        if "norm" in name:
            parameter.add_(1)
    return module


def ragged(
    lengths: Sequence[int], *, columns: int | None = None, vocab_size: int = 128, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Random token ids and which of them are there: (rows, columns) int64 and bool."""
    columns = columns or max(lengths)
    generator = torch.Generator().manual_seed(seed)
    token_ids = torch.randint(5, vocab_size, (len(lengths), columns), generator=generator)
    return token_ids, torch.arange(columns) < torch.tensor(lengths)[:, None]


def ragged_batch(lengths: Sequence[int], *, vocab_size: int = 128, seed: int = 0) -> PackedBatch:
    """The same as a packed batch; a length may be 0."""
    return PackedBatch.from_padded(*ragged(lengths, vocab_size=vocab_size, seed=seed))


def largest_difference(first: Tensor, second: Tensor) -> float:
    """The largest distance between entries of two tensors of one shape; NaN where one is."""
    assert first.shape == second.shape
    return float((first.detach().double() - second.detach().double()).abs().max())
