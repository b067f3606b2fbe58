"""`PretrainingRecipe`: all that decides a pretraining, as a TOML file.

    output = "runs/books"                    # the run's folder; the model will be runs/books/model
    tokenizer = "tokenizer"

    sources = [
        { shards = "shards/books", weight = 2.0 },
        { shards = "shards/code" },
    ]

    [model]
    preset = "base"

    [batch]
    bins_per_step = 64
    bins_per_micro_batch = 4

    [training]
    total_tokens = 1_000_000_000

    [training.schedule]
    peak_learning_rate = 8e-4
    warmup_tokens = 30_000_000

    [evaluation]
    shards = "shards/books/held-out"

Whatever is left out has the value that stands in the class. Paths are relative to the folder in
which the command is run, as they are on a command line.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modernbert.data.masking import MaskingSettings
from modernbert.data.mixture import check_seed
from modernbert.data.packing import PackingSettings
from modernbert.errors import SettingsError
from modernbert.model.config import PRESETS, EncoderConfig, layer_kinds
from modernbert.tasks.vocabulary_loss import MAX_LOGITS_BYTES
from modernbert.training.trainer import TrainingSettings

__all__ = [
    "BatchSettings",
    "EvaluationSettings",
    "ModelSettings",
    "PretrainingRecipe",
    "SourceSettings",
]

_SIZES = (
    "num_layers",
    "global_every",
    "hidden_size",
    "intermediate_size",
    "num_heads",
    "window",
)


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """Shards to train on.

    shards: the folder that `modernbert prepare` wrote.
    weight: the source's share of the tokens, relative to the other sources'.

    Raises:
        SettingsError: a weight that is not above 0.
    """

    shards: Path
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise SettingsError(f"weight: got {self.weight}, expected a number above 0")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which model to train: a new one of some size, or one to go on from.

    preset: the size of a new model: tiny, 17m, 32m, 68m, base, 150m, large, 400m or 1b.
    start: folder or hub id of a masked language model whose weights to begin with instead.
    seed: of a new model's first weights.
    max_seqlen: the longest sequence that the model is made for; of a new model the packing's own
        when None.
    global_theta, local_theta: the base of the rotary angles; None for the started model's, and
        for a new one 10,000 in all layers, as in the paper before context extension (P 2.2).
    num_layers, global_every: layers, and every which of them is global.
    hidden_size, intermediate_size, num_heads, window: in place of the preset's.

    Raises:
        SettingsError: neither or both of preset and start, an unknown preset, or a size for a
            model that has one.
    """

    preset: str | None = None
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
            ModelFolderError: the model of start cannot be read.
        """
        changes = self._given(("max_seqlen", "global_theta", "local_theta"))
        if self.start is not None:
            return replace(EncoderConfig.from_pretrained(self.start), **changes)
        assert self.preset is not None
        sizes = self._given(_SIZES)
        num_layers, every = sizes.pop("num_layers", None), sizes.pop("global_every", 3)
        if num_layers or self.global_every:
            num_layers = num_layers or EncoderConfig.preset(self.preset).num_layers
            sizes["layer_kinds"] = layer_kinds(num_layers, global_every=every)
        theta = {"global_theta": 10_000.0, "local_theta": 10_000.0}
        numbers = {"max_seqlen": max_seqlen, **theta, **sizes, **changes, **vocabulary}
        return EncoderConfig.preset(self.preset, **numbers)

    def _given(self, names: tuple[str, ...]) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How many bins a step has; a bin is `packing.bin_tokens` tokens, nearly all of them real.

    bins_per_step: bins before one update of the weights.
    bins_per_micro_batch: bins that go through the model at once; as many as the memory holds.
        Apart from rounding this leaves the weights as they are, so it may change during a run.

    Raises:
        SettingsError: a number below 1.
    """

    bins_per_step: int
    bins_per_micro_batch: int = 1

    def __post_init__(self) -> None:
        for name in ("bins_per_step", "bins_per_micro_batch"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}: got {getattr(self, name)}, expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What the model is evaluated on, always with 15% of the tokens masked.

    shards: a folder of documents that are not trained on.
    max_tokens: as many of their pieces as these hold, drawn at random; None for all.
    seed: of that choice and of the masks.

    Raises:
        SettingsError: a number out of its range.
    """

    shards: Path
    max_tokens: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise SettingsError(f"max_tokens: got {self.max_tokens}, expected 1 or more")
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class PretrainingRecipe:
    """How to pretrain a model; the defaults are the paper's (P table 3) where it has a say.

    output: the run's folder, which will hold the model in its folder `model`.
    tokenizer: folder or hub id of the one that made the shards.
    sources: what to train on, mixed by weight.
    evaluation: None for no evaluation.
    dropout: of the attention outputs, in training alone.
    seed: of the order of the data and of the masks.
    max_logits_bytes: of the predictions, counted in float32, that are in memory at a time.

    Raises:
        SettingsError: a number out of its range, or no source.
    """

    output: Path
    tokenizer: str
    sources: tuple[SourceSettings, ...]
    model: ModelSettings
    batch: BatchSettings
    training: TrainingSettings
    packing: PackingSettings = field(default_factory=PackingSettings)
    masking: MaskingSettings = field(default_factory=MaskingSettings)
    evaluation: EvaluationSettings | None = None
    dropout: float = 0.1
    seed: int = 0
    max_logits_bytes: int = MAX_LOGITS_BYTES

    def __post_init__(self) -> None:
        if not self.sources:
            raise SettingsError("sources: got none, expected at least one folder of shards")
        if not 0 <= self.dropout < 1:
            raise SettingsError(f"dropout: got {self.dropout}, expected from 0 to below 1")
        if self.max_logits_bytes < 1:
            raise SettingsError(
                f"max_logits_bytes: got {self.max_logits_bytes}, expected 1 or more"
            )
        check_seed(self.seed)
