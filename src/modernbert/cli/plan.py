"""`modernbert plan`: estimates the time, memory and cost of a recipe."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from annotated_types import Ge, Gt, Interval

from modernbert.cli.options import AsJson, Values, argument, echo_json, takes_settings
from modernbert.cli.recipe import find_recipe
from modernbert.cli.terminal import tell
from modernbert.errors import ModelFolderError, SettingsError
from modernbert.overrides import read_assignments
from modernbert.settings import Doc, Settings

if TYPE_CHECKING:
    from modernbert.model.config import EncoderConfig
    from modernbert.planning import DataPlan, DocumentLengths, Machine, Phase, PhasePlan
    from modernbert.tasks.pretraining.recipe import PhaseRecipe, PretrainingRecipe
    from modernbert.tasks.pretraining.trial import Trial, TrialSettings


_IDLE_SHARE = 0.7  # of the cores' time, above which a machine counts as idle


@dataclass(frozen=True, kw_only=True)
class PlanSettings(Settings):
    """The assumptions of `plan`.

    Raises:
        SettingsError: A value is out of its range.
    """

    gpus: Annotated[
        int | None, Ge(1), Doc("Number of GPUs, one process each.", default="8; 1 on a CPU")
    ] = None
    kind: Annotated[
        str, Doc("Type of GPU, such as a100, l4 or rtx4090; or cpu, for this machine.")
    ] = "h100"
    share: Annotated[
        float | None,
        Interval(gt=0, le=1),
        Doc(
            "Fraction of the peak rate that training reaches.",
            default="what the paper's runs reached",
        ),
    ] = None
    peak: Annotated[
        float | None,
        Gt(0),
        Doc(
            "Peak rate of one GPU in TFLOP/s.",
            default="its datasheet's; with --kind cpu what this machine reaches",
        ),
    ] = None
    link: Annotated[
        float | None,
        Gt(0),
        Doc(
            "Bandwidth from one process to the others, in GB per second.",
            default="NVLink or PCIe by the GPU's datasheet; 50 from machine to machine",
        ),
    ] = None
    price: Annotated[
        float | None,
        Ge(0),
        Doc("Price of one GPU for an hour, in any currency.", default="costs are not shown"),
    ] = None
    sharded: Annotated[
        bool,
        Doc("Shard the weights over the processes (FSDP2), like `sharding` of a recipe."),
    ] = False
    recompute: Annotated[
        bool, Doc("Recompute activations to save memory, like `recompute` of a recipe.")
    ] = False
    mean_document_tokens: Annotated[
        float | None,
        Gt(0),
        Doc(
            "Mean length of a document in tokens.",
            default="measured in the recipe's shards, else web-like",
        ),
    ] = None
    preset: Annotated[
        str | None,
        Doc(
            "Size of the model, if the recipe starts from one that does not exist yet.",
            default="the recipe's",
        ),
    ] = None
    tokenize_rate: Annotated[
        float | None,
        Gt(0),
        Doc("Tokens that one core tokenizes per second.", default="measured once"),
    ] = None
    cores: Annotated[int, Ge(1), Doc("Number of CPU cores that tokenize.")] = 16


_ASSUMED = PlanSettings()


@takes_settings
def plan(
    recipe: Annotated[
        Path,
        argument("RECIPE", "The recipe to plan: a .toml file, or a name that `recipe list` shows."),
    ],
    values: Values = None,
    assumed: PlanSettings = _ASSUMED,
    as_json: AsJson = False,
) -> None:
    """Estimate the time, memory, cost and data that a recipe needs.

    Nothing is trained, and the recipe's shards need not exist yet. Each number is shown with its
    source.
    """
    from modernbert.settings import load_mapping

    recipe, given = find_recipe(recipe), read_assignments(values or [])
    load_mapping(recipe)  # a missing file is told of before torch is imported
    from modernbert.cli.plan_table import as_mapping, table
    from modernbert.planning import Machine, find_chip, plan_phase
    from modernbert.planning.plan import nearest_run
    from modernbert.tasks.pretraining.recipe import read_recipe

    chip, settings = find_chip(assumed.kind), read_recipe(recipe, given)
    phases = phases_of(
        settings, preset=assumed.preset, mean_document_tokens=assumed.mean_document_tokens
    )
    if chip.is_cpu:
        phases = [_for_this_cpu(phase) for phase in phases]
    nearest = nearest_run(phases[0].config)
    peak, share = assumed.peak, assumed.share
    peak_measured = chip.is_cpu and peak is None
    if peak_measured:
        peak = _measured_peak(phases[0])
    machine = Machine(
        chip=chip,
        num_gpus=assumed.gpus or (1 if chip.is_cpu else 8),
        share_of_peak=nearest.share_of_peak if share is None else share,
        sharded=assumed.sharded or settings.computation.sharding == "full",
        recompute=assumed.recompute or settings.computation.recompute,
        peak_tflops=peak,
        price_per_gpu_hour=assumed.price,
        link_gb_per_second=assumed.link,
    )
    fitted_to = nearest.size if share is None else None
    sources = _sources(machine, fitted_to, assumed.tokenize_rate, assumed.cores)
    sources["vocabulary_size"] = vocabulary_source(settings, assumed.preset)
    machines = [machine] * len(phases)
    if peak_measured:
        sources["peak"] = "measured here, all cores"
    if peak_measured and share is None:
        tell("measuring some steps of training on this machine")
        from modernbert.tasks.pretraining.trial import try_training

        trials = [try_training(trial_of(phase)) for phase in phases]
        machines = [_as_fast_as(trial, machine) for trial in trials]
        if (share := min(trial.core_share for trial in trials)) < _IDLE_SHARE:
            tell(
                f"other programs are running: training had {share:.0%} of the cores' time; with "
                f"all of it, it would be at least {1 / share:.1f} times as fast"
            )
        sources["share_of_peak"] = "measured here: steps of training, as busy as the machine is"
    plans = [plan_phase(phase, each) for phase, each in zip(phases, machines, strict=True)]
    data = _data_plan(plans, assumed.tokenize_rate, assumed.cores)
    if as_json:
        echo_json(as_mapping(plans, data, sources))
        return
    typer.echo("\n".join(table(plans, data, sources)))
    for warning in (warning for each in plans for warning in each.warnings):
        tell(f"warning: {warning}")


def _for_this_cpu(phase: "Phase") -> "Phase":
    """The phase with the precision that `auto` comes to on this machine, as training takes it."""
    import torch

    from modernbert.training.computation import compute_dtype

    bfloat16 = compute_dtype("cpu", phase.precision) is torch.bfloat16
    return replace(phase, precision="bfloat16" if bfloat16 else "float32")


def _measured_peak(phase: "Phase") -> float:
    """TFLOP/s of a large matrix product on this machine's CPU, in the format of a phase."""
    import torch

    from modernbert.training.log import matmul_flops_per_second

    dtype = torch.bfloat16 if phase.precision == "bfloat16" else torch.float32
    return matmul_flops_per_second(torch.device("cpu"), dtype) / 1e12


def _as_fast_as(trial: "Trial", machine: "Machine") -> "Machine":
    """The machine with the share of its peak that a trial has reached, all cores together."""
    reached = trial.flops_per_second / 1e12
    assert machine.peak_tflops is not None
    peak = max(machine.peak_tflops, reached)  # one product alone may be slower than training
    return replace(machine, peak_tflops=peak, share_of_peak=reached / peak)


def _data_plan(plans: "list[PhasePlan]", rate: float | None, cores: int) -> "DataPlan":
    """Of all that the phases see, each document once."""
    from modernbert.planning import DocumentLengths, plan_data
    from modernbert.planning.lengths import TOKENS_PER_SECOND_AND_CORE

    phases = [plan.phase for plan in plans]
    content = [
        phase.total_tokens * phase.lengths.pieces(phase.max_seqlen).content_share
        for phase in phases
    ]
    return plan_data(
        max(1, round(sum(content))),
        lengths=DocumentLengths.mixed([phase.lengths for phase in phases], content, source=""),
        vocab_size=phases[0].config.vocab_size,
        tokens_per_second_and_core=TOKENS_PER_SECOND_AND_CORE if rate is None else rate,
        num_cores=cores,
    )


def _sources(
    machine: "Machine", fitted_to: str | None, rate: float | None, cores: int
) -> dict[str, Any]:
    """Where the numbers come from that are neither the recipe's nor arithmetic."""
    from modernbert.planning.lengths import TOKENS_PER_SECOND_AND_CORE

    measured = f"measured: {TOKENS_PER_SECOND_AND_CORE:,.0f} tokens/s on a Zen 5 core"
    return {
        "peak": "its datasheet, dense" if machine.peak_tflops is None else "given",
        "share_of_peak": f"what the paper's {fitted_to} reached on 8 H100; yours: --share"
        if fitted_to
        else "given",
        "tokenizing": measured if rate is None else "given",
        "cores": cores,
    }


_TRIAL_TOKENS = 4_096
_DROPOUT = 0.1  # how much does not matter to the speed


def phases_of(
    recipe: "PretrainingRecipe", *, preset: str | None, mean_document_tokens: float | None
) -> "list[Phase]":
    """Return the phases of a recipe, in their order.

    Args:
        recipe: The recipe; its shards need not exist.
        preset: The model's size in place of what the recipe says.
        mean_document_tokens: Of lognormal lengths, in place of those of the shards.

    Raises:
        ModernBertError: The model of `start` cannot be read, or shards that are there are broken.
    """
    return [_phase(each, recipe.tokenizer, preset, mean_document_tokens) for each in recipe.phases]


def _phase(
    recipe: "PhaseRecipe", tokenizer: str, preset: str | None, mean_document_tokens: float | None
) -> "Phase":
    from modernbert.planning import Phase

    bin_tokens, batch, training = recipe.packing.bin_tokens, recipe.batch, recipe.training
    num_steps = batch.num_steps(training.total_tokens, bin_tokens)
    return Phase(
        name=recipe.name,
        config=model_of(recipe, tokenizer, preset),
        total_tokens=training.total_tokens,
        max_seqlen=recipe.packing.max_seqlen,
        tokens_per_step=batch.bins_per_step * bin_tokens
        if batch.ramp is None
        else round(training.total_tokens / num_steps),
        micro_batch_tokens=min(batch.bins_per_micro_batch, batch.bins_per_step) * bin_tokens,
        max_logits_bytes=recipe.max_logits_bytes,
        mask_rate=recipe.predicted_share,
        dropout=recipe.dropout > 0,
        lengths=lengths_of(recipe, mean_document_tokens),
        precision=training.precision,
        optimizer=training.optimizer,
        keep_checkpoints=training.keep_checkpoints,
    )


def model_of(recipe: "PhaseRecipe", tokenizer: str, preset: str | None) -> "EncoderConfig":
    """Return the model's numbers, with the vocabulary of the tokenizer where that is there already.

    Raises:
        ModelFolderError: The model of `start` cannot be read.
    """
    from modernbert.tokenizer.tokenizer import Tokenizer

    settings = recipe.model
    if preset is not None:
        settings = replace(settings, start=None, preset=preset, grow_from=None)
    elif settings.grow_from is not None and not Path(settings.grow_from).exists():
        settings = replace(settings, grow_from=None)  # of it, the plan needs its angles alone
    vocabulary = {}
    if Path(tokenizer).is_dir():
        vocabulary["vocab_size"] = Tokenizer.from_pretrained(tokenizer).vocab_size
    try:
        return settings.config(max_seqlen=recipe.packing.max_seqlen, **vocabulary)
    except ModelFolderError as error:
        raise ModelFolderError(
            f"start: {error}; to plan before it exists, give its size, such as --preset base"
        ) from None


def vocabulary_source(recipe: "PretrainingRecipe", preset: str | None) -> str:
    """Where `model_of` has the size of the vocabulary from, in words for the plan's table."""
    if Path(recipe.tokenizer).is_dir():
        return recipe.tokenizer
    start = recipe.phases[0].model.start
    if start is not None and preset is None:
        return str(start)
    return f"assumed, as {recipe.tokenizer} does not exist"


def lengths_of(recipe: "PhaseRecipe", mean_document_tokens: float | None) -> "DocumentLengths":
    """Return how long the documents are: as given, as in the shards, or as on the web.

    Raises:
        ShardError: Shards that are there cannot be used.
    """
    from modernbert.planning import WEB, DocumentLengths

    if mean_document_tokens is not None:
        source = f"lognormal, with the mean of {mean_document_tokens:,.0f} that was given"
        return DocumentLengths.lognormal(mean_document_tokens, source=source)
    if not all((Path(each.shards) / "manifest.json").is_file() for each in recipe.sources):
        return WEB
    parts = [_measured(each.shards) for each in recipe.sources]
    if len(parts) == 1:
        return parts[0]
    weights = [each.weight for each in recipe.sources]
    return DocumentLengths.mixed(parts, weights, source="measured in the recipe's shards")


def _measured(folder: str) -> "DocumentLengths":
    """Measure the lengths in a folder's first shard, as documents are shuffled over all."""
    import numpy as np

    from modernbert.data.shards import ShardFolder
    from modernbert.planning import DocumentLengths

    shards = ShardFolder.open(folder).shards
    if not shards:
        raise SettingsError(f"{folder}: has no documents; prepare a corpus that has some")
    lengths = np.diff(shards[0].offsets.astype(np.int64))
    return DocumentLengths.measured(lengths, source=f"measured in {folder}")


def trial_of(phase: "Phase") -> "TrialSettings":
    """Describe a trial of a phase, which tells how fast this machine trains.

    Args:
        phase: With lengths of its documents; neither shards nor a tokenizer need be there.

    Returns:
        The phase's model on random tokens, in steps as large as the phase's or somewhat smaller.
    """
    from modernbert.tasks.pretraining.trial import TrialSettings

    num_tokens = min(phase.micro_batch_tokens, max(_TRIAL_TOKENS, phase.max_seqlen))
    lengths = phase.lengths.pieces(phase.max_seqlen).sample(num_tokens)
    return TrialSettings(
        config=phase.config,
        lengths=lengths,
        micro_batches=max(1, round(phase.tokens_per_step / sum(lengths))),
        mask_rate=phase.mask_rate,
        dropout=_DROPOUT if phase.dropout else 0.0,
        max_logits_bytes=phase.max_logits_bytes,
        precision=phase.precision,
    )
