"""What the log of a pretraining tells for its report, besides the training itself."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from modernbert.data.packing import Bin
from modernbert.model.config import EncoderConfig
from modernbert.model.flops import flops_per_token
from modernbert.tasks.pretraining.recipe import PretrainingRecipe
from modernbert.training.machine import describe_machine, matmul_flops_per_second
from modernbert.training.precision import compute_dtype

_BACKWARD = 2  # so many times the arithmetic of a forward


def step_flops(config: EncoderConfig, bins: Sequence[Bin], *, masked_share: float) -> float:
    """Floating-point operations of a step over these bins, forward and backward."""
    lengths, counts = np.unique(np.concatenate([each.lengths for each in bins]), return_counts=True)
    forward = sum(
        float(count * length) * flops_per_token(config, length, masked_share=masked_share)
        for length, count in zip(lengths.tolist(), counts.tolist(), strict=True)
    )
    return float((1 + _BACKWARD) * forward)


def description(
    config: EncoderConfig, recipe: PretrainingRecipe, device: torch.device
) -> Callable[[], dict[str, Any]]:
    """A function that tells of the model and the machine, which it measures, as JSON values."""
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
