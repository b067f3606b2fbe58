"""Which model a pretraining begins with."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from annotated_types import Ge

from modernbert.errors import SettingsError
from modernbert.model.config import PRESETS, EncoderConfig, layer_kinds
from modernbert.settings import Doc, Settings

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
class ModelSettings(Settings):
    """Which model to train: a new one of some size, or one to continue from.

    A new model has an angle base of 10,000 in all layers, as in the paper before context extension
    (P 2.2).

    Raises:
        SettingsError: Neither or both of preset and start are given, grow_from comes without
            preset, a preset is unknown, or a size is given for a model that has one.
    """

    preset: Annotated[
        str | None,
        Doc(
            "The size of a new model: `tiny`, `17m`, `32m`, `68m`, `base`, `150m`, `large`, `400m` "
            "or `1b`."
        ),
    ] = None
    grow_from: Annotated[
        str | None,
        Doc("Folder or hub id of a smaller model from which to tile the new one (P 2.2)."),
    ] = None
    start: Annotated[
        str | None, Doc("Folder or hub id of a masked language model to continue from.")
    ] = None
    seed: Annotated[int, Ge(0), Doc("The seed of a new model's first weights.")] = 0
    max_seqlen: Annotated[
        int | None,
        Doc("The longest sequence of the model; none for the packing's, or the started model's."),
    ] = None
    global_theta: Annotated[
        float | None,
        Doc("Rotary base of global layers; none for 10,000, or that of `start` or `grow_from`."),
    ] = None
    local_theta: Annotated[float | None, Doc("The same for local layers.")] = None
    num_layers: Annotated[int | None, Ge(1), Doc("Layers, if not the preset's number.")] = None
    global_every: Annotated[
        int | None, Ge(1), Doc("Every how many layers one is global; none for 3.")
    ] = None
    hidden_size: Annotated[int | None, Doc("Width, if not the preset's.")] = None
    intermediate_size: Annotated[int | None, Doc("Width of the MLP, if not the preset's.")] = None
    num_heads: Annotated[int | None, Doc("Attention heads, if not the preset's number.")] = None
    window: Annotated[
        int | None, Doc("Tokens that a local layer sees on either side; none for 64.")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.preset is None) == (self.start is None):
            raise SettingsError(
                "expected either preset, for a new model, or start, a model to continue from"
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
