"""From a recipe to the numbers that planning works with."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from modernbert.errors import ModelFolderError, SettingsError

if TYPE_CHECKING:
    from modernbert.model.config import EncoderConfig
    from modernbert.planning import DocumentLengths, Phase
    from modernbert.tasks.pretraining.recipe import PhaseRecipe, PretrainingRecipe
    from modernbert.tasks.pretraining.trial import TrialSettings

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
