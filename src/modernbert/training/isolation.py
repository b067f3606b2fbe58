"""Random numbers that depend on nothing but the step, and evaluations that leave no trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's generators for one step, whatever was drawn before it.

    Args:
        seed: The seed of the run.
        step: The number of the step.
        rank: The rank of this process; each process draws its own numbers.
    """
    entropy = [seed, step, rank] if rank else [seed, step]
    (state,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    torch.manual_seed(int(state))


@contextmanager
def undisturbed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode without gradients; modes and random states are put back afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        devices = [device] if device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
