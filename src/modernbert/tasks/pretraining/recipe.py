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
what the file says above, key by key; see `recipe_tables`.

    [[phases]]
    name = "pretraining"

    [[phases]]
    name = "decay"
    masking = { rate = 0.15 }
    training.total_tokens = 50_000_000
    training.schedule = { warmup_tokens = 0, decay = "1-sqrt", decay_tokens = 50_000_000 }
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Interval, MinLen

from modernbert.data.masking import MaskingSettings
from modernbert.data.mixture import NUM_SEEDS
from modernbert.data.packing import PackingSettings
from modernbert.data.shard_cache import CacheSettings
from modernbert.errors import SettingsError
from modernbert.model.choices import AttentionChoice
from modernbert.overrides import overridden
from modernbert.settings import (
    Doc,
    PretrainingObjective,
    Settings,
    check_keys,
    load_mapping,
    parse,
    to_mapping,
)
from modernbert.tasks.pretraining import recipe_tables
from modernbert.tasks.pretraining.recipe_tables import BatchSettings, ModelSettings, RampSettings
from modernbert.tasks.pretraining.vocabulary_loss import MAX_LOGITS_BYTES
from modernbert.training.task import check_names
from modernbert.training.trainer import TrainingSettings
from modernbert.training.training_settings import ComputationSettings, LogSettings

__all__ = [
    "AveragingSettings",
    "BatchSettings",
    "EvaluationSettings",
    "ModelSettings",
    "PhaseRecipe",
    "PretrainingRecipe",
    "RampSettings",
    "SourceSettings",
    "read_recipe",
]

ONLY_PHASE = "pretraining"
PHASES_OWN = ("name", "start_from")
# A phase's model is in a folder of its name, beside these.
_TAKEN_NAMES = (
    "averaged",
    "candidates",
    "checkpoints",
    "model",
    "tensorboard",
    "trackers",
    "wandb",
)


@dataclass(frozen=True, kw_only=True)
class SourceSettings(Settings):
    """Shards to train on.

    Raises:
        SettingsError: The weight is out of its range.
    """

    shards: Annotated[
        str, Doc("A folder written by `modernbert prepare`, or its address in object storage.")
    ]
    weight: Annotated[
        float, Gt(0), Doc("The source's share of the tokens, relative to the other sources.")
    ] = 1.0


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(Settings):
    """What the model is evaluated on, always with 15% of the tokens masked.

    Raises:
        SettingsError: A value is out of its range.
    """

    shards: Annotated[str, Doc("A folder of documents that are not trained on, or its address.")]
    general: Annotated[
        str | None,
        Doc(
            "A second such folder, of general text: how well its masked tokens are predicted shows "
            "what a model forgets while it learns a field. They are masked in causal phases too."
        ),
    ] = None
    max_tokens: Annotated[
        int | None, Ge(1), Doc("Evaluate on a random sample of this many tokens; none for all.")
    ] = None
    seed: Annotated[
        int, Interval(ge=0, lt=NUM_SEEDS), Doc("The seed of the sample and the masks.")
    ] = 0


@dataclass(frozen=True, kw_only=True)
class PhaseRecipe(Settings):
    """One phase of a pretraining; the defaults are the paper's (P table 3) where it gives any.

    `sources` are mixed by weight; without `evaluation` the phase is not evaluated. `start_from`
    goes back to an earlier phase (P appendix "Large rollback").

    Raises:
        SettingsError: A value is out of its range, or the name cannot be that of a folder.
    """

    name: Annotated[
        str, Doc("The name of the phase in records, and of the folder of the model after it.")
    ] = ONLY_PHASE
    sources: Annotated[tuple[SourceSettings, ...], MinLen(1)]
    model: ModelSettings
    batch: BatchSettings
    training: TrainingSettings
    packing: PackingSettings = field(default_factory=PackingSettings)
    masking: MaskingSettings = field(default_factory=MaskingSettings)
    objective: Annotated[
        PretrainingObjective,
        Doc(
            "`masked` predicts masked tokens; `causal` predicts each next token from those before "
            "it, in training and evaluation, and masks nothing. A masked phase should follow it."
        ),
    ] = "masked"
    evaluation: EvaluationSettings | None = None
    dropout: Annotated[
        float, Interval(ge=0, lt=1), Doc("Dropout of the attention outputs, only in training.")
    ] = 0.1
    seed: Annotated[
        int,
        Interval(ge=0, lt=NUM_SEEDS),
        Doc("The seed of the data's order and of the masks."),
    ] = 0
    max_logits_bytes: Annotated[
        int, Ge(1), Doc("The most bytes of predictions in memory at once, counted in float32.")
    ] = MAX_LOGITS_BYTES
    start_from: Annotated[
        str | None,
        Doc("An earlier phase from whose last state to start; none for the phase before."),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name) or self.name in _TAKEN_NAMES:
            raise SettingsError(
                f"name: got {self.name!r}, expected small letters, digits, - and _, and none of "
                f"{', '.join(_TAKEN_NAMES)}, which are folders of the run"
            )

    @property
    def predicted_share(self) -> float:
        """The share of the tokens that are predicted in training, but for [CLS] and [SEP]."""
        return 1.0 if self.objective == "causal" else self.masking.rate


@dataclass(frozen=True, kw_only=True)
class AveragingSettings(Settings):
    """Which states of a phase are averaged at a run's end (P appendix "Final Checkpoints").

    States are those that are evaluated; their models are kept until then, and afterwards too.

    Raises:
        SettingsError: A value is out of its range, or there are fewer than two states.
    """

    phase: Annotated[str | None, Doc("The phase whose states to average; none for the last.")] = (
        None
    )
    last: Annotated[int, Ge(0), Doc("The number of newest states to average.")] = 0
    best: Annotated[
        int, Ge(0), Doc("The number of further states, those with the lowest held-out loss.")
    ] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.last + self.best < 2:
            raise SettingsError(
                f"got last = {self.last} and best = {self.best}, expected at least two states"
            )

    def chosen(self, losses: Mapping[str, float]) -> set[str]:
        """Return the names of the states to average, of those evaluated so far.

        What is not chosen is not chosen later either, when there are more states.

        >>> settings = AveragingSettings(last=1, best=2)
        >>> sorted(settings.chosen({"1": 4.0, "2": 2.0, "3": 3.0, "4": 5.0}))
        ['2', '3', '4']

        Args:
            losses: By name; the names sort as the states follow each other.
        """
        names = sorted(losses)
        last = set(names[max(0, len(names) - self.last) :])
        others = sorted((losses[name], name) for name in names if name not in last)
        return last | {name for _, name in others[: self.best]}


@dataclass(frozen=True, kw_only=True)
class PretrainingRecipe(Settings):
    """How to pretrain a model, in one phase or several.

    `averaging` averages states of one phase, which gives a model beside `model`.

    Raises:
        SettingsError: The phases cannot follow each other: two have one name, a `start_from` is not
            an earlier phase, models have different weights, or a theta falls again; or the average
            is of a phase that does not exist or has no evaluation.
    """

    output: Annotated[
        Path, Doc("The run's folder; the finished model will be in its folder `model`.")
    ]
    tokenizer: Annotated[str, Doc("Folder or hub id of the tokenizer that made the shards.")]
    phases: tuple[PhaseRecipe, ...]
    averaging: AveragingSettings | None = None
    attention: Annotated[
        AttentionChoice,
        Doc("The attention back end: `auto`, or `varlen`, `flash3`, `flex` or `blocks`."),
    ] = "auto"
    computation: ComputationSettings = field(default_factory=ComputationSettings)
    log: LogSettings = field(default_factory=LogSettings)
    shard_cache: CacheSettings = field(default_factory=CacheSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
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
        """Read a recipe's file, in which what stands above the phases belongs to each of them.

        Raises:
            SettingsError: An unknown key, or a phase that does not fit; it is named.
        """
        own = [each.name for each in fields(cls)]
        of_phases = [each.name for each in fields(PhaseRecipe) if each.name not in PHASES_OWN]
        check_keys(mapping, [*own, *of_phases], where=where)
        shared = {key: value for key, value in mapping.items() if key in own}
        common = {key: value for key, value in mapping.items() if key not in own}
        if "phases" not in mapping:
            return {**shared, "phases": (parse(PhaseRecipe, common, where=where),)}
        merged = recipe_tables.merged(common, mapping["phases"], where=where)
        phases = [parse(PhaseRecipe, table, where=label) for label, table in merged]
        return {**shared, "phases": tuple(phases)}

    def fold(self, mapping: dict[str, Any]) -> dict[str, Any]:
        """Write a recipe's file, in which what all phases have in common stands above them."""
        common, rests = recipe_tables.parted(mapping["phases"], PHASES_OWN)
        folded = {key: value for key, value in mapping.items() if key != "phases"} | common
        if rests != [{"name": ONLY_PHASE}]:
            folded["phases"] = rests
        return folded

    @property
    def averaged_phase(self) -> int | None:
        """The number of the phase whose states are averaged; None without an average.

        Raises:
            SettingsError: There is no phase of that name.
        """
        if self.averaging is None:
            return None
        names = [phase.name for phase in self.phases]
        name = self.averaging.phase or names[-1]
        if name not in names:
            raise SettingsError(f"averaging: phase: got {name!r}, expected one of {names}")
        return names.index(name)

    def phase_before(self, index: int) -> int | None:
        """Return the phase whose last state a phase starts from, by number; None for the first."""
        names = [phase.name for phase in self.phases]
        start_from = self.phases[index].start_from
        if start_from is not None:
            return names.index(start_from)
        return index - 1 if index else None

    def data_begins(self, index: int) -> int:
        """Return the number of the phase in which the row of a phase's data begins.

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
        """Return the tokens of all phases before one."""
        return sum(phase.training.total_tokens for phase in self.phases[:index])


def read_recipe(
    recipe: PretrainingRecipe | Mapping[str, Any] | Path | str,
    values: Mapping[str, Any] | None = None,
) -> PretrainingRecipe:
    """Read a recipe, with other values in place of its own.

    Args:
        recipe: The recipe, the same as a mapping, or its file.
        values: By key, such as `training.total_tokens`; see `overrides`. A key of a phase begins
            with `phases.NAME.`, another is for all phases that do not say otherwise.

    Raises:
        SettingsError: There is no such file, or something in it or in the values cannot be used.
    """
    if isinstance(recipe, PretrainingRecipe):
        if not values:
            return recipe
        recipe = to_mapping(recipe)
    is_file = isinstance(recipe, Path | str)
    mapping = load_mapping(recipe) if isinstance(recipe, Path | str) else recipe
    changed = overridden(mapping, values or {}, PretrainingRecipe, PhaseRecipe)
    return parse(PretrainingRecipe, changed, where=str(recipe) if is_file else "recipe")


def _check_same_model(before: PhaseRecipe, phase: PhaseRecipe) -> None:
    if before.model.with_same_weights() != phase.model.with_same_weights():
        raise SettingsError(
            f"phases: {phase.name}: model: differs from that of {before.name}; only max_seqlen, "
            "global_theta and local_theta may change from phase to phase"
        )
    for name in ("global_theta", "local_theta"):
        earlier, later = getattr(before.model, name), getattr(phase.model, name)
        if earlier is not None and (later is None or later < earlier):
            now = "its default" if later is None else f"{later:g}"
            raise SettingsError(
                f"phases: {phase.name}: model.{name}: falls from {earlier:g} to {now}; set it "
                "again in this phase, or above all phases"
            )
