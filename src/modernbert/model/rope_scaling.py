"""Rotary positions whose angles are stretched: read from config.json, and written into it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modernbert.errors import ConfigError
from modernbert.json_files import integer, number

_MAX_SEQLEN = 1 << 24

# The numbers of a scaling of rotary positions, by the names here.
_KEYS = {
    "factor": "factor",
    "original_max_seqlen": "original_max_position_embeddings",
    "attention_factor": "attention_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
}


_ALLOWED: Mapping[str, Sequence[str]] = {
    "default": (),
    "linear": ("factor",),
    "yarn": tuple(_KEYS.values()),
}

# Keys that change nothing when they have these values. transformers rounds YaRN's borders whatever
# `truncate` says for a kind of layer.
_PLAIN = (("partial_rotary_factor", 1), ("truncate", True))


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Rotary positions of a model whose context was stretched after its training.

    Attributes:
        kind: `linear` divides every angle by `factor`; `yarn` (arXiv 2309.00071) the slow ones
            alone, and grows queries and keys by `attention_factor`.
        factor: How many times longer sequences may be.
        original_max_seqlen: The longest sequence before, in tokens; for yarn.
        attention_factor: Of cosines and sines; for yarn.
        beta_fast: Turns within the original length above which an angle stays as it is, and below
            which it is divided whole; for yarn.
        beta_slow: As `beta_fast`.

    Raises:
        ConfigError: Numbers that make no sense.
    """

    kind: Literal["linear", "yarn"]
    factor: float
    original_max_seqlen: int = 8_192
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    def __post_init__(self) -> None:
        for name in ("factor", "attention_factor", "beta_fast", "beta_slow"):
            if not 0 < getattr(self, name) < 1e6:
                raise ConfigError(f"rope scaling: {name}: got {getattr(self, name)}")
        if not 1 <= self.original_max_seqlen <= _MAX_SEQLEN:
            raise ConfigError(f"rope scaling: original length: got {self.original_max_seqlen}")


def read_scaling(entry: Mapping[str, Any], where: str, max_seqlen: int) -> RopeScaling | None:
    """Return the scaling that an entry of `rope_parameters` asks for.

    Args:
        entry: The entry, or the `rope_scaling` of transformers 4.
        where: Its name, for errors.
        max_seqlen: The model's longest sequence, which counts where the entry names no length.

    Raises:
        ConfigError: A scaling that is not computed here, or numbers that make no sense.
    """
    kind = entry.get("rope_type", entry.get("type", "default"))
    if not isinstance(kind, str) or kind not in _ALLOWED:
        raise ConfigError(f"{where}.rope_type: got {kind!r}, expected {', '.join(_ALLOWED)}")
    for key, value in entry.items():
        is_plain = (key, value) in _PLAIN or value is None
        if key not in ("rope_type", "type", "rope_theta", *_ALLOWED[kind]) and not is_plain:
            raise ConfigError(f"{where}.{key}: {value!r} is not supported with rope_type {kind!r}")
    if kind == "default":
        return None
    original = integer(entry, _KEYS["original_max_seqlen"], max_seqlen)
    factor = number(entry, "factor", max_seqlen / original if original > 0 else 0)
    if kind == "linear":
        return RopeScaling(kind="linear", factor=factor)
    grown = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0  # arXiv 2309.00071, section 3.4
    return RopeScaling(
        kind="yarn",
        factor=factor,
        original_max_seqlen=original,
        attention_factor=number(entry, "attention_factor", grown),
        beta_fast=number(entry, "beta_fast", 32.0),
        beta_slow=number(entry, "beta_slow", 1.0),
    )


def written_scaling(scaling: RopeScaling | None) -> dict[str, Any]:
    """Return what an entry of `rope_parameters` says about a scaling."""
    if scaling is None:
        return {"rope_type": "default"}
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {"rope_type": "yarn", **{key: getattr(scaling, own) for own, key in _KEYS.items()}}
