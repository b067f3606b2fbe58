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

A run of several phases lists them at the end. Each has a name, and what it says stands in place of
what the file says above, key by key; see `phase_tables`.

    [[phases]]
    name = "pretraining"

    [[phases]]
    name = "decay"
    masking = { rate = 0.15 }
    training.total_tokens = 50_000_000
    training.schedule = { warmup_tokens = 0, decay = "1-sqrt", decay_tokens = 50_000_000 }
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from modernbert.data.masking import MaskingSettings
from modernbert.data.mixture import check_seed
from modernbert.data.packing import PackingSettings
from modernbert.data.shard_cache import CacheSettings
from modernbert.errors import SettingsError
from modernbert.model.attention_choice import AttentionChoice
from modernbert.settings import check_keys, parse
from modernbert.tasks.pretraining import phase_tables
from modernbert.tasks.pretraining.batch_settings import BatchSettings, RampSettings
from modernbert.tasks.pretraining.model_settings import ModelSettings
from modernbert.tasks.pretraining.vocabulary_loss import MAX_LOGITS_BYTES
from modernbert.training.computation_settings import ComputationSettings
from modernbert.training.phase import check_names
from modernbert.training.trainer import TrainingSettings

__all__ = [
    "AveragingSettings",
    "BatchSettings",
    "EvaluationSettings",
    "ModelSettings",
    "PhaseRecipe",
    "PretrainingRecipe",
    "RampSettings",
    "SourceSettings",
]

ONLY_PHASE = "pretraining"
_PHASES_OWN = ("name", "start_from")
# A phase's model is in a folder of its name, beside these.
_TAKEN_NAMES = ("averaged", "candidates", "checkpoints", "model", "tensorboard")


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """Shards to train on.

    shards: the folder that `modernbert prepare` wrote, or its address in object storage.
    weight: the source's share of the tokens, relative to the other sources'.

    Raises:
        SettingsError: a weight that is not above 0.
    """

    shards: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise SettingsError(f"weight: got {self.weight}, expected a number above 0")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What the model is evaluated on, always with 15% of the tokens masked.

    shards: a folder of documents that are not trained on, or its address.
    max_tokens: as many of their pieces as these hold, drawn at random; None for all.
    seed: of that choice and of the masks.

    Raises:
        SettingsError: a number out of its range.
    """

    shards: str
    max_tokens: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise SettingsError(f"max_tokens: got {self.max_tokens}, expected 1 or more")
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class PhaseRecipe:
    """One phase of a pretraining; the defaults are the paper's (P table 3) where it has a say.

    name: of the phase, in records, and of the folder that its model is in.
    sources: what to train on, mixed by weight.
    evaluation: None for no evaluation.
    dropout: of the attention outputs, in training alone.
    seed: of the order of the data and of the masks.
    max_logits_bytes: of the predictions, counted in float32, that are in memory at a time.
    start_from: name of an earlier phase whose last state this one starts from, in place of that of
        the phase before (P appendix "Large rollback").

    Raises:
        SettingsError: a number out of its range, no source, or a name that is no folder's.
    """

    name: str = ONLY_PHASE
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
    start_from: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name) or self.name in _TAKEN_NAMES:
            raise SettingsError(
                f"name: got {self.name!r}, expected small letters, digits, - and _, and none of "
                f"{', '.join(_TAKEN_NAMES)}, which are folders of the run"
            )
        if not self.sources:
            raise SettingsError("sources: got none, expected at least one folder of shards")
        if not 0 <= self.dropout < 1:
            raise SettingsError(f"dropout: got {self.dropout}, expected from 0 to below 1")
        if self.max_logits_bytes < 1:
            raise SettingsError(
                f"max_logits_bytes: got {self.max_logits_bytes}, expected 1 or more"
            )
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class AveragingSettings:
    """Which states of a phase are averaged at a run's end (P appendix "Final Checkpoints").

    States are those that are evaluated; their models are kept until then, and afterwards too.

    phase: its name; the last one when None.
    last: how many of the newest.
    best: how many besides, those of the lowest held-out loss.

    Raises:
        SettingsError: a number below 0, or fewer than two states.
    """

    phase: str | None = None
    last: int = 0
    best: int = 0

    def __post_init__(self) -> None:
        for name in ("last", "best"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name}: got {getattr(self, name)}, expected 0 or more")
        if self.last + self.best < 2:
            raise SettingsError(
                f"got last = {self.last} and best = {self.best}, expected at least two states"
            )

    def chosen(self, losses: Mapping[str, float]) -> set[str]:
        """The names of the states to average, of those evaluated so far.

        losses: by name; the names sort as the states follow each other.

        What is not chosen is not chosen later either, when there are more states.

        >>> settings = AveragingSettings(last=1, best=2)
        >>> sorted(settings.chosen({"1": 4.0, "2": 2.0, "3": 3.0, "4": 5.0}))
        ['2', '3', '4']
        """
        names = sorted(losses)
        last = set(names[max(0, len(names) - self.last) :])
        others = sorted((losses[name], name) for name in names if name not in last)
        return last | {name for _, name in others[: self.best]}


@dataclass(frozen=True, kw_only=True)
class PretrainingRecipe:
    """How to pretrain a model, in one phase or several.

    output: the run's folder, which will hold the model in its folder `model`.
    tokenizer: folder or hub id of the one that made the shards.
    phases: in their order, each with all of its numbers.
    averaging: of states of one phase, which gives a model beside `model`; None for none.
    attention: its back end; `auto` takes what the device has.
    computation: how the processes of the run compute.
    shard_cache: where files of shards in object storage are kept.

    Raises:
        SettingsError: phases that cannot follow each other: two of a name, a `start_from` that is
            no earlier phase, models of different weights, or a theta that falls again; or an
            average of a phase that is not there or has no evaluation.
    """

    output: Path
    tokenizer: str
    phases: tuple[PhaseRecipe, ...]
    averaging: AveragingSettings | None = None
    attention: AttentionChoice = "auto"
    computation: ComputationSettings = field(default_factory=ComputationSettings)
    shard_cache: CacheSettings = field(default_factory=CacheSettings)

    def __post_init__(self) -> None:
        check_names([(phase.name, phase.start_from) for phase in self.phases])
        for before, phase in zip(self.phases, self.phases[1:], strict=False):
            _check_same_model(before, phase)
        if (index := self.averaged_phase) is not None and self.phases[index].evaluation is None:
            raise SettingsError(
                f"averaging: {self.phases[index].name}: has no evaluation, and so no states to "
                "choose from"
            )

    @classmethod
    def unfold(cls, mapping: Mapping[str, Any], where: str) -> dict[str, Any]:
        """From a recipe's file: what stands above the phases goes into each of them.

        Raises:
            SettingsError: an unknown key, or a phase that does not fit; it is named.
        """
        own = [each.name for each in fields(cls)]
        of_phases = [each.name for each in fields(PhaseRecipe) if each.name not in _PHASES_OWN]
        check_keys(mapping, [*own, *of_phases], where=where)
        shared = {key: value for key, value in mapping.items() if key in own}
        common = {key: value for key, value in mapping.items() if key not in own}
        if "phases" not in mapping:
            return {**shared, "phases": (parse(PhaseRecipe, common, where=where),)}
        merged = phase_tables.merged(common, mapping["phases"], where=where)
        phases = [parse(PhaseRecipe, table, where=label) for label, table in merged]
        return {**shared, "phases": tuple(phases)}

    def fold(self, mapping: dict[str, Any]) -> dict[str, Any]:
        """To a recipe's file: what all phases have in common stands above them."""
        common, rests = phase_tables.parted(mapping["phases"], _PHASES_OWN)
        folded = {key: value for key, value in mapping.items() if key != "phases"} | common
        if rests != [{"name": ONLY_PHASE}]:
            folded["phases"] = rests
        return folded

    @property
    def averaged_phase(self) -> int | None:
        """The number of the phase whose states are averaged; None without an average.

        Raises:
            SettingsError: there is no phase of that name.
        """
        if self.averaging is None:
            return None
        names = [phase.name for phase in self.phases]
        name = self.averaging.phase or names[-1]
        if name not in names:
            raise SettingsError(f"averaging: phase: got {name!r}, expected one of {names}")
        return names.index(name)

    def phase_before(self, index: int) -> int | None:
        """The number of the phase whose last state a phase starts from; None for the first."""
        names = [phase.name for phase in self.phases]
        start_from = self.phases[index].start_from
        if start_from is not None:
            return names.index(start_from)
        return index - 1 if index else None

    def data_begins(self, index: int) -> int:
        """The number of the phase in which the row of a phase's data begins.

        A phase with the sources, packing and seed of the phase that it starts from goes on where
        that one ended; any other has a row of its own, in an order of its own.
        """
        before = self.phase_before(index)
        if before is None:
            return index
        one, other = self.phases[before], self.phases[index]
        same = (one.sources, one.packing, one.seed) == (other.sources, other.packing, other.seed)
        return self.data_begins(before) if same else index

    def tokens_before(self, index: int) -> int:
        """Tokens of all phases before one."""
        return sum(phase.training.total_tokens for phase in self.phases[:index])


def _check_same_model(before: PhaseRecipe, phase: PhaseRecipe) -> None:
    if before.model.with_same_weights() != phase.model.with_same_weights():
        raise SettingsError(
            f"phases: {phase.name}: model: got another one than in {before.name}; only "
            "max_seqlen, global_theta and local_theta may change from phase to phase"
        )
    for name in ("global_theta", "local_theta"):
        earlier, later = getattr(before.model, name), getattr(phase.model, name)
        if earlier is not None and (later is None or later < earlier):
            now = "its default" if later is None else f"{later:g}"
            raise SettingsError(
                f"phases: {phase.name}: model.{name}: falls from {earlier:g} to {now}; say it "
                "again in this phase, or above all phases"
            )
