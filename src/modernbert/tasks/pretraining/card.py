"""What a pretraining tells of itself: facts for its report, and README.md of the model.

It names no paths: a card is for others.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modernbert.data.packing import Bin
from modernbert.model.config import EncoderConfig, flops_per_token
from modernbert.report.page import header, versions
from modernbert.tasks.pretraining.averaging import AveragedPart
from modernbert.tasks.pretraining.recipe import PhaseRecipe, PretrainingRecipe
from modernbert.training.computation import compute_dtype
from modernbert.training.log import describe_machine, matmul_flops_per_second

_BACKWARD = 2  # so many times the arithmetic of a forward


def step_flops(config: EncoderConfig, bins: Sequence[Bin], *, masked_share: float) -> float:
    """Count the operations of a step over these bins, forward and backward."""
    lengths, counts = np.unique(np.concatenate([each.lengths for each in bins]), return_counts=True)
    forward = sum(
        float(count * length) * flops_per_token(config, length, masked_share=masked_share)
        for length, count in zip(lengths.tolist(), counts.tolist(), strict=True)
    )
    return float((1 + _BACKWARD) * forward)


def description(
    config: EncoderConfig, recipe: PretrainingRecipe, device: torch.device
) -> Callable[[], dict[str, Any]]:
    """Return a function that describes the model and the measured machine as JSON values."""
    return partial(_describe, config, recipe, device)


def _describe(
    config: EncoderConfig, recipe: PretrainingRecipe, device: torch.device
) -> dict[str, Any]:
    first = recipe.phases[0]
    dtype = compute_dtype(device, first.training.precision)
    return {
        "about": {
            "task": "pretraining",
            "begins_with": first.model.start or first.model.preset,
            "parameters": config.num_parameters(head=True),
            "layers": f"{config.num_layers} of width {config.hidden_size}",
            "vocabulary": config.vocab_size,
            "computed_in": str(dtype).removeprefix("torch."),
            **describe_machine(device),
        },
        "matmul_flops_per_second": matmul_flops_per_second(device, dtype),
    }


_FIGURES = {
    "held_out_loss": ("loss", ".3f"),
    "held_out_accuracy": ("accuracy", ".1%"),
    "general_loss": ("loss on general text", ".3f"),
    "general_accuracy": ("accuracy on general text", ".1%"),
}


def pretraining_card(
    recipe: PretrainingRecipe,
    index: int,
    config: EncoderConfig,
    figures: Mapping[str, float],
    parts: Sequence[AveragedPart] = (),
) -> str:
    """Return the card of the model after a phase, as Markdown.

    Args:
        recipe: The recipe of the whole run.
        index: Of the phase.
        config: The config of the model.
        figures: Of its last evaluation; empty where there is none.
        parts: Where the weights are the mean of several states, these.
    """
    training = [
        "## Training",
        "",
        "| phase | tokens | longest sequence | tokens a step | masked | peak rate | data |",
        "|---|---|---|---|---|---|---|",
        *(_row(phase) for phase in recipe.phases[: index + 1]),
        "",
        *_beginning(recipe.phases[0]),
    ]
    return _card(recipe.output.name, config, figures, parts, training)


def average_card(
    config: EncoderConfig, figures: Mapping[str, float], parts: Sequence[AveragedPart], *, name: str
) -> str:
    """Return the card of a mean of states of which no recipe is known, as Markdown."""
    return _card(name, config, figures, parts)


def _card(
    name: str,
    config: EncoderConfig,
    figures: Mapping[str, float],
    parts: Sequence[AveragedPart],
    training: Sequence[str] = (),
) -> str:
    told = [f"- {each}" for each in _figures(figures)]
    return "\n".join(
        [
            header(library="transformers", pipeline="fill-mask"),
            f"# {name}",
            "",
            *_model(config),
            "",
            *(["## On held-out text", "", *told, ""] if told else []),
            *([*_parts(parts), ""] if parts else []),
            *training,
            versions(),
        ]
    )


def _model(config: EncoderConfig) -> list[str]:
    return [
        f"A ModernBERT of {config.num_parameters(head=True):,} parameters: {config.num_layers} "
        f"layers of width {config.hidden_size}, a vocabulary of {config.vocab_size:,}, for up to "
        f"{config.max_seqlen:,} tokens. It was pretrained to predict masked tokens, and is meant "
        "to be fine-tuned: for labels of texts or tokens, or for retrieval.",
        "",
        "```python",
        "from modernbert import FillMask",
        "",
        'model = FillMask.from_pretrained("FOLDER")',
        'print(model("A text with a [MASK]."))',
        "```",
        "",
        'transformers loads it as well: `pipeline("fill-mask", model="FOLDER")`.',
    ]


def _row(phase: PhaseRecipe) -> str:
    tokens = phase.batch.bins_per_step * phase.packing.bin_tokens
    cells = [
        phase.name if phase.start_from is None else f"{phase.name}, from {phase.start_from}",
        f"{phase.training.total_tokens:,}",
        f"{phase.packing.max_seqlen:,}",
        f"{tokens:,}" if phase.batch.ramp is None else f"up to {tokens:,}",
        "next tokens" if phase.objective == "causal" else f"{phase.masking.rate:.0%}",
        f"{phase.training.schedule.peak_learning_rate:g}",
        ", ".join(_data(phase)),
    ]
    return f"| {' | '.join(cells)} |"


def _data(phase: PhaseRecipe) -> list[str]:
    """The last part of each source's path, and its share where there are several."""
    total = sum(source.weight for source in phase.sources)
    names = [Path(source.shards).name for source in phase.sources]
    if len(names) == 1:
        return names
    return [
        f"{name} {source.weight / total:.0%}"
        for name, source in zip(names, phase.sources, strict=True)
    ]


def _beginning(phase: PhaseRecipe) -> list[str]:
    start = phase.model.start or phase.model.grow_from
    return [f"It began with the weights of `{Path(start).name}`.", ""] if start else []


def _figures(figures: Mapping[str, float]) -> list[str]:
    return [
        f"{name} {figures[key]:{form}}" for key, (name, form) in _FIGURES.items() if key in figures
    ]


def _parts(parts: Sequence[AveragedPart]) -> list[str]:
    return [
        f"The weights are the mean of {len(parts)} states of a training:",
        "",
        *(
            f"- {', '.join([part.folder.name, f'weight {part.weight:g}', *_figures(part.figures)])}"
            for part in parts
        ),
    ]
