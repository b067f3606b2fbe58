"""Which model a pretraining begins with."""

from dataclasses import dataclass, replace
from typing import Any

from modernbert.errors import SettingsError
from modernbert.model.config import PRESETS, EncoderConfig, layer_kinds

_SIZES = (
    "num_layers",
    "global_every",
    "hidden_size",
    "intermediate_size",
    "num_heads",
    "window",
)
# What a phase may change: it leaves the weights their shapes.
_LENGTH_AND_ANGLES = ("max_seqlen", "global_theta", "local_theta")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model to train: a new one of some size, or one to go on from.

    preset: the size of a new model: tiny, 17m, 32m, 68m, base, 150m, large, 400m or 1b.
    grow_from: folder or hub id of a smaller masked language model, whose weights the new one is
        tiled from instead of drawn at random (P section 2.2, "Tiling").
    start: folder or hub id of a masked language model whose weights to begin with.
    seed: of a new model's first weights.
    max_seqlen: the longest sequence that the model is made for; of a new model the packing's own
        when None.
    global_theta, local_theta: the base of the rotary angles; None for those of the model of start
        or grow_from, and for a new one 10,000 in all layers, as in the paper before context
        extension (P 2.2).
    num_layers, global_every: layers, and every which of them is global.
    hidden_size, intermediate_size, num_heads, window: in place of the preset's.

    Raises:
        SettingsError: neither or both of preset and start, grow_from without preset, an unknown
            preset, or a size for a model that has one.
    """

    preset: str | None = None
    grow_from: str | None = None
    start: str | None = None
    seed: int = 0
    max_seqlen: int | None = None
    global_theta: float | None = None
    local_theta: float | None = None
    num_layers: int | None = None
    global_every: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_heads: int | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        if (self.preset is None) == (self.start is None):
            raise SettingsError(
                "expected either preset, the size of a new model, or start, a model to go on from"
            )
        if self.grow_from is not None and self.preset is None:
            raise SettingsError("grow_from: needs preset, the size that the model is to grow to")
        if self.preset is not None and self.preset not in PRESETS:
            raise SettingsError(
                f"preset: got {self.preset!r}, expected one of {', '.join(PRESETS)}"
            )
        if self.start is not None and (given := self._given(_SIZES)):
            raise SettingsError(
                f"{next(iter(given))}: the model of start has its own; leave it out"
            )
        if self.seed < 0:
            raise SettingsError(f"seed: got {self.seed}, expected 0 or more")
        for name in ("num_layers", "global_every"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise SettingsError(f"{name}: got {value}, expected 1 or more")

    def config(self, *, max_seqlen: int, **vocabulary: int) -> EncoderConfig:
        """The numbers of the model.

        max_seqlen: of the packing.
        vocabulary: `vocab_size` and the ids of the special tokens, for a new model.

        Raises:
            ConfigError: numbers that do not fit together.
            ModelFolderError: the model of start or grow_from cannot be read.
        """
        changes = self._given(_LENGTH_AND_ANGLES)
        if self.start is not None:
            return replace(EncoderConfig.from_pretrained(self.start), **changes)
        assert self.preset is not None
        sizes = self._given(_SIZES)
        num_layers, every = sizes.pop("num_layers", None), sizes.pop("global_every", 3)
        if num_layers or self.global_every:
            num_layers = num_layers or EncoderConfig.preset(self.preset).num_layers
            sizes["layer_kinds"] = layer_kinds(num_layers, global_every=every)
        theta = {"global_theta": 10_000.0, "local_theta": 10_000.0}
        if self.grow_from is not None:
            small = EncoderConfig.from_pretrained(self.grow_from)
            theta = {name: getattr(small, name) for name in theta}
        numbers = {"max_seqlen": max_seqlen, **theta, **sizes, **changes, **vocabulary}
        return EncoderConfig.preset(self.preset, **numbers)

    def with_same_weights(self) -> "ModelSettings":
        """The same without what leaves the weights their shapes: length and angles."""
        return replace(self, max_seqlen=None, global_theta=None, local_theta=None)

    def _given(self, names: tuple[str, ...]) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}
