"""The inputs of a transformers model as a `PackedBatch`, and results in the form of the inputs.

Two forms are supported: padded rows with a mask, and one row of many sequences with their borders,
as transformers' flattening collator and ours make it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import InputError

BORDERS, LONGEST = "cu_seq_lens_q", "max_length_q"
PACKED_KEYS = frozenset((BORDERS, LONGEST, "cu_seq_lens_k", "max_length_k", "seq_idx"))


def has_padding(attention_mask: Any) -> bool:
    """Return whether an attention mask of any form may hide something."""
    return attention_mask is not None and not (
        isinstance(attention_mask, Tensor) and bool((attention_mask != 0).all())
    )


@dataclass(frozen=True, eq=False)
class Inputs:
    """The arguments of one call of a transformers encoder.

    Attributes:
        token_ids: (rows, columns) int64, or None if there are `embeds`.
        mask: (rows, columns), nonzero at tokens; None if there is no padding.
        position_ids: (rows, columns) or (1, columns); None if positions count from 0.
        embeds: (rows, columns, hidden_size), or None.
        options: All other arguments; a batch with `cu_seq_lens_q` is packed.
    """

    token_ids: Tensor | None
    mask: Any
    position_ids: Tensor | None
    embeds: Tensor | None
    options: Mapping[str, Any]

    @property
    def is_packed(self) -> bool:
        """Whether this is one row of sequences with their borders."""
        return self.options.get(BORDERS) is not None

    def packed(self) -> PackedBatch | None:
        """Return the sequences, or None for a form that is left to transformers.

        Raises:
            InputError: The borders of a packed batch do not fit it.
        """
        if (self.token_ids is None) == (self.embeds is None):
            return None
        token_ids = self.token_ids
        if self.embeds is not None:
            if self.embeds.ndim != 3:
                return None
            token_ids = torch.zeros(self.embeds.shape[:2], dtype=torch.int64).to(self.embeds.device)
        assert token_ids is not None
        if token_ids.ndim != 2 or not token_ids.numel():
            return None
        return self._flat(token_ids) if self.is_packed else self._padded(token_ids)

    def flat_embeds(self, batch: PackedBatch) -> Tensor | None:
        """Return the given embeddings without padding, if any: (total_tokens, hidden_size)."""
        if self.embeds is None:
            return None
        flat = self.embeds.flatten(0, 1)
        return flat if batch.padded_indices is None else flat[batch.padded_indices]

    def as_given(self, batch: PackedBatch, hidden: Tensor) -> Tensor:
        """Bring results back into the form of the inputs, with zeros at padding.

        Args:
            batch: What `packed` returned.
            hidden: (total_tokens, width).

        Returns:
            (rows, columns, width).
        """
        return hidden[None] if self.is_packed else batch.to_padded(hidden)

    def _flat(self, token_ids: Tensor) -> PackedBatch:
        borders = self.options[BORDERS]
        is_row = isinstance(borders, Tensor) and borders.ndim == 1 and len(borders) > 0
        if not is_row or token_ids.shape[0] != 1:
            raise InputError(
                f"packed batch: got input_ids {tuple(token_ids.shape)}, expected one row, and in "
                f"{BORDERS} the borders of its sequences, (num_sequences + 1,)"
            )
        ends = borders[[0, -1]].tolist()
        if ends != [0, token_ids.shape[1]] or bool((borders.diff() < 0).any()):
            raise InputError(
                f"{BORDERS}: got {ends} at the ends, expected numbers that rise from 0 to "
                f"{token_ids.shape[1]}, the number of tokens"
            )
        return PackedBatch(
            token_ids=token_ids[0].to(torch.int64),
            cu_seqlens=borders.to(token_ids.device, torch.int32),
            max_seqlen=int(borders.diff().max()),
        )

    def _padded(self, token_ids: Tensor) -> PackedBatch | None:
        mask = self.mask
        if mask is not None and (not isinstance(mask, Tensor) or mask.shape != token_ids.shape):
            return None
        if mask is not None and not (_is_padded_on_the_right(mask) and bool((mask != 0).any())):
            return None  # transformers counts gaps and padding on the left in its positions
        batch = PackedBatch.from_padded(token_ids, mask)
        return batch if self._has_plain_positions(batch) else None

    def _has_plain_positions(self, batch: PackedBatch) -> bool:
        """Return whether positions are 0, 1, 2, ... in each row, as the kernels assume."""
        if self.position_ids is None:
            return True
        assert batch.padded_shape is not None and batch.padded_indices is not None
        if self.position_ids.ndim != 2 or self.position_ids.shape[1] != batch.padded_shape[1]:
            return False
        if self.position_ids.shape[0] not in (1, batch.padded_shape[0]):
            return False
        given = self.position_ids.expand(batch.padded_shape).flatten()[batch.padded_indices]
        return torch.equal(given.to(torch.int64), batch.position_ids)


def _is_padded_on_the_right(mask: Tensor) -> bool:
    present = mask != 0
    return not bool((present[:, 1:] & ~present[:, :-1]).any())
