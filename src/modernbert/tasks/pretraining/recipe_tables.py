"""The tables of a pretraining's recipe: the model, the batches, the phases.

A key of a phase stands in place of the same key above the phases; tables are merged key by key,
lists and values are replaced whole.

    seed = 1
    batch = { size = 8, parts = 2 }
    [[phases]]                              {name = "a", seed = 1, batch = {size = 8, parts = 2}}
    name = "a"                         ->   {name = "b", seed = 1, batch = {size = 4, parts = 2}}
    [[phases]]
    name = "b"
    batch = { size = 4 }
"""

from collections.abc import Mapping, Sequence
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
        """Return the config of the model.

        Args:
            max_seqlen: The longest sequence of the packing, in tokens.
            **vocabulary: `vocab_size` and the ids of the special tokens, for a new model.

        Raises:
            ConfigError: Numbers that do not fit together.
            ModelFolderError: The model of start or grow_from cannot be read.
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
        """Return the same without what leaves the weights their shapes: length and angles."""
        return replace(self, max_seqlen=None, global_theta=None, local_theta=None)

    def _given(self, names: tuple[str, ...]) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class RampSettings(Settings):
    """Smaller steps first (P section 2.2.2, "Batch Size Schedule").

    The size rises in equal increments to `bins_per_step`, with the same number of steps at each.

    Raises:
        SettingsError: A value is out of its range.
    """

    first_bins: Annotated[int, Ge(1), Doc("The number of bins of the first steps.")]
    increment_bins: Annotated[int, Ge(1), Doc("The number of bins by which the size rises.")]
    tokens: Annotated[int, Ge(1), Doc("The tokens of the phase before the full size is reached.")]


@dataclass(frozen=True, kw_only=True)
class BatchSettings(Settings):
    """How many bins a step has; a bin is `packing.bin_tokens` tokens, nearly all of them real.

    Raises:
        SettingsError: A value is out of its range, or a ramp does not end at `bins_per_step`.
    """

    bins_per_step: Annotated[int, Ge(1), Doc("The number of bins of a step, of all processes.")]
    bins_per_micro_batch: Annotated[
        int,
        Ge(1),
        Doc("The number of bins that go through the model at once; it affects memory and speed."),
    ] = 1
    ramp: RampSettings | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ramp is None:
            return
        rise = self.bins_per_step - self.ramp.first_bins
        if rise <= 0 or rise % self.ramp.increment_bins:
            raise SettingsError(
                f"ramp: from {self.ramp.first_bins} bins in increments of "
                f"{self.ramp.increment_bins} it does not reach bins_per_step, {self.bins_per_step}"
            )

    def bins_at(self, tokens: int) -> int:
        """Return the bins of the step that begins when so many tokens of the phase were seen.

        With the same number of steps at each size, the tokens at a size are as the size is.

        >>> ramp = RampSettings(first_bins=1, increment_bins=1, tokens=600)
        >>> settings = BatchSettings(bins_per_step=4, ramp=ramp)
        >>> [settings.bins_at(tokens) for tokens in (0, 99, 100, 299, 300, 599, 600)]
        [1, 1, 2, 2, 3, 3, 4]
        """
        if self.ramp is None or tokens >= self.ramp.tokens:
            return self.bins_per_step
        sizes = range(self.ramp.first_bins, self.bins_per_step, self.ramp.increment_bins)
        total, reached = sum(sizes), 0
        for size in sizes:
            reached += size
            if tokens * total < self.ramp.tokens * reached:
                return size
        return self.bins_per_step

    def num_steps(self, tokens: int, bin_tokens: int) -> int:
        """Return how many steps see so many tokens if every bin is full."""
        steps = 0
        if self.ramp is not None:
            sizes = range(self.ramp.first_bins, self.bins_per_step, self.ramp.increment_bins)
            at_each = self.ramp.tokens / (sum(sizes) * bin_tokens)
            steps, tokens = round(at_each * len(sizes)), max(0, tokens - self.ramp.tokens)
        return steps + -(-tokens // (self.bins_per_step * bin_tokens))


PhaseTable = dict[str, Any]


def merged(common: Mapping[str, Any], phases: Any, *, where: str) -> list[tuple[str, PhaseTable]]:
    """Return each phase's whole table, and how an error names it.

    Args:
        common: The tables that all phases share.
        phases: As TOML gives them, so perhaps not a list of tables at all.
        where: The beginning of every error message, such as the file name.

    Raises:
        SettingsError: It is not, or one has no name.
    """
    if not isinstance(phases, list) or not all(isinstance(each, Mapping) for each in phases):
        raise SettingsError(f"{where}: phases: got {phases!r}, expected [[phases]] tables")
    for number, phase in enumerate(phases):
        if "name" not in phase:
            raise SettingsError(f"{where}: phases[{number}]: key 'name' is missing")
    return [(f"{where}: phase {each['name']!r}", merge(common, each)) for each in phases]


def merge(table: Mapping[str, Any], over: Mapping[str, Any]) -> PhaseTable:
    """Return a table with another laid over it.

    >>> merge({"a": 1, "t": {"x": 1, "y": 2}}, {"t": {"y": 3}, "b": 4})
    {'a': 1, 't': {'x': 1, 'y': 3}, 'b': 4}
    """
    result = dict(table)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merge(below, value)
        result[key] = value
    return result


def parted(tables: Sequence[PhaseTable], own: Sequence[str]) -> tuple[PhaseTable, list[PhaseTable]]:
    """Return the reverse of `merge`: what all tables have in common, and what is left of each.

    >>> parted([{"name": "a", "t": {"x": 1, "y": 2}}, {"name": "b", "t": {"x": 1}}], ["name"])
    ({'t': {'x': 1}}, [{'name': 'a', 't': {'y': 2}}, {'name': 'b'}])

    Args:
        tables: The tables of the recipe.
        own: Keys that stay with each table, whatever they are.
    """
    common = _common([{k: v for k, v in each.items() if k not in own} for each in tables])
    return common, [_without(each, common) for each in tables]


def _common(tables: Sequence[PhaseTable]) -> PhaseTable:
    first, *others = tables
    common: PhaseTable = {}
    for key, value in first.items():
        values = [value, *(other.get(key) for other in others)]
        if all(isinstance(each, dict) for each in values):
            if inner := _common(values):
                common[key] = inner
        elif all(each == value for each in values):
            common[key] = value
    return common


def _without(table: PhaseTable, common: PhaseTable) -> PhaseTable:
    rest: PhaseTable = {}
    for key, value in table.items():
        if key not in common:
            rest[key] = value
        elif isinstance(value, dict) and (inner := _without(value, common[key])):
            rest[key] = inner
    return rest
