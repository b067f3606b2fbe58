"""Joining bins into a batch that a model can train on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.data.masking import MaskedTokens, mask_tokens
from modernbert.data.packing import Bin
from modernbert.errors import InputError
from modernbert.settings import PretrainingObjective


@dataclass(frozen=True, eq=False, kw_only=True)
class MaskedBatch:
    """A batch with masked tokens, and the tokens to predict.

    Attributes:
        batch: The tokens, after masking.
        masked_indices: (num_masked,) int64, ascending rows of the flat batch to predict; may be
            empty.
        labels: (num_masked,) int64, the original ids at these rows.
        bin_ids: The positions of its bins in their stream.
        bin_tokens_each: The number of tokens of each bin, in the same order.
    """

    batch: PackedBatch
    masked_indices: Tensor
    labels: Tensor
    bin_ids: tuple[int, ...]
    bin_tokens_each: tuple[int, ...]

    @property
    def num_masked(self) -> int:
        """The number of tokens to predict."""
        return len(self.labels)

    def filled_up(self, total_tokens: int, *, max_seqlen: int, token_id: int) -> "MaskedBatch":
        """Bring the batch into a fixed shape; see `PackedBatch.filled_up`.

        The filling counts as one more bin with the id -1, of which nothing is predicted.
        """
        missing = total_tokens - self.batch.total_tokens
        return replace(
            self,
            batch=self.batch.filled_up(total_tokens, max_seqlen=max_seqlen, token_id=token_id),
            bin_ids=(*self.bin_ids, -1),
            bin_tokens_each=(*self.bin_tokens_each, missing),
        )

    def pin_memory(self) -> "MaskedBatch":
        """Copy the batch into memory from which a GPU can copy while the CPU continues."""
        return replace(
            self,
            batch=self.batch.pin_memory(),
            masked_indices=self.masked_indices.pin_memory(),
            labels=self.labels.pin_memory(),
        )

    def without_targets(self) -> "MaskedBatch":
        """Return the same tokens with nothing to predict, for a process that has no share."""
        return replace(self, masked_indices=self.masked_indices[:0], labels=self.labels[:0])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "MaskedBatch":
        """Copy the batch to another device."""
        return replace(
            self,
            batch=self.batch.to(device, non_blocking=non_blocking),
            masked_indices=self.masked_indices.to(device, non_blocking=non_blocking),
            labels=self.labels.to(device, non_blocking=non_blocking),
        )


def collate(
    bins: Sequence[Bin],
    *,
    vocab_size: int,
    rate: float,
    seed: int,
    objective: PretrainingObjective = "masked",
) -> MaskedBatch:
    """Read bins, mask each with its own key (seed, id), and join them to one batch.

    A bin is masked alike whichever bins it is joined with.

    Args:
        bins: The bins, in their order in the batch.
        vocab_size: Of the tokenizer.
        rate: The probability that a token is masked.
        seed: Of the masks.
        objective: With `causal` nothing is masked, and each token but the last of a sequence is to
            predict the next one.

    Raises:
        InputError: No bins.
        ShardError: A shard's bytes are not those that were written.
    """
    if not bins:
        raise InputError("no bins: a batch needs at least one")
    if objective == "causal":
        masked = [_next_tokens(each) for each in bins]
    else:
        masked = [
            mask_tokens(
                each.read(),
                special_token_ids=each.special_token_ids,
                vocab_size=vocab_size,
                rate=rate,
                key=(seed, each.id),
            )
            for each in bins
        ]
    sizes = [each.num_tokens for each in bins]
    firsts = np.cumsum([0, *sizes[:-1]])
    lengths = np.concatenate([each.lengths for each in bins])
    indices = [part.masked_indices + first for part, first in zip(masked, firsts, strict=True)]
    return MaskedBatch(
        batch=PackedBatch(
            token_ids=_join([part.token_ids for part in masked]),
            cu_seqlens=torch.from_numpy(np.append(0, lengths.cumsum()).astype(np.int32)),
            max_seqlen=int(lengths.max()),
        ),
        masked_indices=_join(indices),
        labels=_join([part.labels for part in masked]),
        bin_ids=tuple(each.id for each in bins),
        bin_tokens_each=tuple(sizes),
    )


def _next_tokens(each: Bin) -> MaskedTokens:
    token_ids = each.read()
    rows = np.delete(np.arange(len(token_ids)), each.lengths.cumsum() - 1)
    return MaskedTokens(token_ids, rows, token_ids[rows + 1])


def _join(parts: Sequence[np.ndarray]) -> Tensor:
    """Concatenate arrays into a (total,) int64 tensor."""
    return torch.from_numpy(np.concatenate(parts))
