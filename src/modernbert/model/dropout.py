"""Dropout whose draws depend on a bin's own key, not on what it is batched with.

The paper drops 10% of each attention's output in pretraining and nothing else (P table 3). Here
each bin's draws come from a generator seeded by the bin's key and the layer, so that accumulation,
the number of processes and a resume leave them unchanged.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from modernbert.errors import InputError


class Dropout:
    """What an encoder applies to the outputs of its attention layers while training.

    Args:
        rate: The probability that an entry becomes 0; the others grow by 1 / (1 - rate).
        keys: A tuple of whole numbers for each run of rows, such as (seed, step, bin).
        num_tokens_each: How many rows of the flat batch each key is for, in their order.

    Raises:
        InputError: A rate outside (0, 1), or keys and runs of different number.
    """

    def __init__(
        self, rate: float, *, keys: Sequence[Sequence[int]], num_tokens_each: Sequence[int]
    ) -> None:
        if not 0 < rate < 1:
            raise InputError(f"dropout rate: got {rate}, expected above 0 and below 1")
        if len(keys) != len(num_tokens_each):
            raise InputError(f"dropout: got {len(keys)} keys for {len(num_tokens_each)} runs")
        self._rate = rate
        self._keys = [tuple(key) for key in keys]
        self._num_tokens_each = list(num_tokens_each)

    def draw(self, hidden: Tensor, layer: int) -> "Draws":
        """Return what one layer drops of the output of its attention.

        Args:
            hidden: (total_tokens, hidden_size), for its shape and device alone.
            layer: The number of the layer, from 0.
        """
        if sum(self._num_tokens_each) != len(hidden):
            raise InputError(
                f"dropout: its runs have {sum(self._num_tokens_each)} tokens, "
                f"the batch has {len(hidden)}"
            )
        kept = torch.empty(hidden.shape, dtype=torch.bool, device=hidden.device)
        generator = torch.Generator(hidden.device)
        for key, rows in zip(self._keys, kept.split(self._num_tokens_each), strict=True):
            generator.manual_seed(_seed(*key, layer))
            rows.bernoulli_(1 - self._rate, generator=generator)
        return Draws(kept, 1 / (1 - self._rate))


class Draws(NamedTuple):
    """Of one layer: which entries are kept, (total_tokens, hidden_size) bool, and their growth."""

    kept: Tensor
    growth: float


def drop(hidden: Tensor, draws: Draws) -> Tensor:
    """Make 0 of what is not kept, and larger what is: (total_tokens, hidden_size) to the same."""
    return torch.where(draws.kept, hidden * draws.growth, 0.0)


def _seed(*numbers: int) -> int:
    """63 well-mixed bits of some numbers."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
