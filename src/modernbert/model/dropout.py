"""Dropout whose draws depend on a bin's own key, not on what it is batched with.

The paper drops 10% of each attention's output in pretraining and nothing else (P table 3). Here
each bin's draws come from a generator seeded by the bin's key and the layer, so that accumulation,
the number of processes and a resume leave them unchanged.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from modernbert.errors import InputError


class Dropout:
    """What an encoder applies to the outputs of its attention layers while training.

    rate: the probability that an entry becomes 0; the others grow by 1 / (1 - rate).
    keys: a tuple of whole numbers for each run of rows, such as (seed, step, bin).
    num_tokens_each: how many rows of the flat batch each key is for, in their order.

    Raises:
        InputError: a rate outside (0, 1), or keys and runs of different number.
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
        self._kept: list[Tensor] = []

    def __call__(self, hidden: Tensor, layer: int) -> Tensor:
        """Drop entries of the output of one layer's attention.

        hidden: (total_tokens, hidden_size).
        """
        if self._kept:
            return hidden * (self._kept[layer].to(hidden.dtype) / (1 - self._rate))
        return hidden * self._factors(hidden, layer)

    def draw(self, like: Tensor, num_layers: int) -> None:
        """Draw for all layers now, a byte an entry: a compiled forward cannot seed generators.

        like: (total_tokens, hidden_size), of the type that the layers' outputs will have.
        """
        self._kept = [self._factors(like, layer) != 0 for layer in range(num_layers)]

    def _factors(self, hidden: Tensor, layer: int) -> Tensor:
        """0 or 1 / (1 - rate) for each entry, in the type of `hidden`."""
        factors = torch.empty_like(hidden)
        if sum(self._num_tokens_each) != len(hidden):
            raise InputError(
                f"dropout: its runs have {sum(self._num_tokens_each)} tokens, "
                f"the batch has {len(hidden)}"
            )
        generator = torch.Generator(hidden.device)
        for key, rows in zip(self._keys, factors.split(self._num_tokens_each), strict=True):
            generator.manual_seed(_seed(*key, layer))
            rows.bernoulli_(1 - self._rate, generator=generator)
        return factors.div_(1 - self._rate)


def _seed(*numbers: int) -> int:
    """63 well-mixed bits of some numbers."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
