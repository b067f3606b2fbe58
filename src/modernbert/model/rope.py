"""Rotary positions (P section 2.1.1; RoFormer, arXiv 2104.09864), in half rotation.

The pair of a head's entry i is entry i + head_size / 2, as in GPT-NeoX. Angles are float32.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from modernbert.model.config import EncoderConfig, LayerKind
from modernbert.model.rope_scaling import RopeScaling


class RotaryTable(NamedTuple):
    """Cosines and sines of each token's angles: (total_tokens, head_size / 2) float32 both."""

    cos: Tensor
    sin: Tensor


def rotary_table(
    position_ids: Tensor, head_size: int, theta: float, scaling: RopeScaling | None = None
) -> RotaryTable:
    """Return the table of tokens at the given positions of their sequences.

    Args:
        position_ids: (total_tokens,) int64.
        head_size: The width of one head.
        theta: The rotary base.
        scaling: How the angles are stretched, if at all.
    """
    frequencies = _frequencies(head_size, theta, scaling, position_ids.device)
    angles = torch.outer(position_ids.float(), frequencies)
    grown = 1.0 if scaling is None else scaling.attention_factor
    return RotaryTable(angles.cos() * grown, angles.sin() * grown)


def rotary_tables(config: EncoderConfig, position_ids: Tensor) -> dict[LayerKind, RotaryTable]:
    """Return the tables of tokens for each kind of layer, with the angles of the config.

    Args:
        config: The config of the model.
        position_ids: As in `rotary_table`.
    """
    return {
        kind: rotary_table(position_ids, config.head_size, config.theta(kind), config.scaling(kind))
        for kind in set(config.layer_kinds)
    }


def _frequencies(
    head_size: int, theta: float, scaling: RopeScaling | None, device: torch.device
) -> Tensor:
    """(head_size / 2,) float32. Radians a token."""
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=device) / head_size
    frequencies = 1.0 / theta**exponents
    if scaling is None:
        return frequencies
    stretched = frequencies / scaling.factor
    if scaling.kind == "linear":
        return stretched
    share = _stretched_share(head_size, theta, scaling, device)
    return stretched * share + frequencies * (1 - share)


def _stretched_share(
    head_size: int, theta: float, scaling: RopeScaling, device: torch.device
) -> Tensor:
    """(head_size / 2,) from 0 to 1. How much each pair of entries is stretched by YaRN.

    Pairs that turn `beta_fast` times or more within the original length are left as they are, those
    that turn less than `beta_slow` times are stretched whole (arXiv 2309.00071, section 3.2).
    """

    def pair_that_turns(times: float) -> float:
        wavelength = scaling.original_max_seqlen / (times * 2 * math.pi)
        return head_size * math.log(wavelength) / (2 * math.log(theta))

    low = max(math.floor(pair_that_turns(scaling.beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(scaling.beta_slow)), head_size - 1)
    width = high - low or 0.001
    pairs = torch.arange(head_size // 2, dtype=torch.float32, device=device)
    return ((pairs - low) / width).clamp(0, 1)


def rotate(heads: Tensor, table: RotaryTable) -> Tensor:
    """Turn queries or keys by their positions.

    Args:
        heads: (total_tokens, num_heads, head_size), any float type, which the result has too.
        table: The rotary table of the batch.
    """
    first, second = heads.float().chunk(2, dim=-1)  # (total_tokens, num_heads, head_size / 2)
    cos, sin = table.cos[:, None], table.sin[:, None]
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(heads.dtype)
