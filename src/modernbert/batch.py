"""`PackedBatch`: sequences of any length in one flat row, without padding.

Padding exists only at the edges: `from_padded` takes padded tensors in, and `to_padded` gives them
out again. All code in between works on ids of the shape (total_tokens,) and the borders between
sequences.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from modernbert.errors import InputError


@dataclass(frozen=True, eq=False, kw_only=True)
class PackedBatch:
    """Token ids of several sequences, one after the other, and the borders between them.

    Attributes:
        token_ids: (total_tokens,) int64.
        cu_seqlens: (num_sequences + 1,) int32. Cumulative lengths from 0 to total_tokens; sequence
            i is `token_ids[cu_seqlens[i]:cu_seqlens[i + 1]]`.
        max_seqlen: The longest sequence in tokens, or a fixed upper bound of it.
        padded_shape: (rows, columns) of the padded batch; set only by `from_padded`.
        padded_indices: (total_tokens,) int64 indices into the flattened (rows, columns), so that
            `to_padded` puts every token back in its place; set only by `from_padded`.
        num_tokens_each: The lengths of the sequences on the host, if they are known without asking
            the device.
    """

    token_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    padded_shape: tuple[int, int] | None = None
    padded_indices: Tensor | None = None
    num_tokens_each: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.token_ids.ndim != 1 or self.token_ids.dtype != torch.int64:
            raise InputError(
                f"token_ids: got {_describe(self.token_ids)}, expected (total_tokens,) int64"
            )
        if self.cu_seqlens.ndim != 1 or self.cu_seqlens.dtype != torch.int32:
            raise InputError(
                f"cu_seqlens: got {_describe(self.cu_seqlens)}, expected (num_sequences + 1,) int32"
            )

    @classmethod
    def from_sequences(
        cls,
        sequences: Iterable[Sequence[int] | np.ndarray | Tensor],
        *,
        device: torch.device | str | None = None,
    ) -> "PackedBatch":
        """Pack lists of token ids in their order.

        >>> batch = PackedBatch.from_sequences([[5, 6, 7], [8, 9]])
        >>> batch.token_ids.tolist(), batch.cu_seqlens.tolist()
        ([5, 6, 7, 8, 9], [0, 3, 5])

        Args:
            sequences: The token ids of each sequence.
            device: Where to put the batch; on the CPU by default.

        Raises:
            InputError: There is no sequence, one is empty, or ids are not integers.
        """
        rows = [_as_ids(sequence, index) for index, sequence in enumerate(sequences)]
        if not rows:
            raise InputError("no sequences: a batch needs at least one")
        lengths = [len(row) for row in rows]
        cu_seqlens = _cumulative(torch.tensor(lengths, dtype=torch.int32))
        return cls(
            token_ids=torch.cat(rows).to(device=device),
            cu_seqlens=cu_seqlens.to(device=device),
            max_seqlen=max(lengths),
            num_tokens_each=tuple(lengths),
        )

    @classmethod
    def from_padded(cls, token_ids: Tensor, attention_mask: Tensor | None = None) -> "PackedBatch":
        """Drop the padding of a padded batch, on whichever side it is.

        Args:
            token_ids: (rows, columns) of any integer type.
            attention_mask: (rows, columns), nonzero at tokens; None if there is no padding. A row
                of only padding becomes a sequence of length 0.

        Raises:
            InputError: The shapes differ, or there is no token at all.
        """
        if token_ids.ndim != 2:
            raise InputError(f"token_ids: got {_describe(token_ids)}, expected (rows, columns)")
        if attention_mask is None:
            attention_mask = torch.ones_like(token_ids)
        if attention_mask.shape != token_ids.shape:
            raise InputError(
                f"attention_mask: got {_describe(attention_mask)}, "
                f"expected the shape of token_ids, {tuple(token_ids.shape)}"
            )
        present = attention_mask != 0
        lengths = present.sum(dim=1, dtype=torch.int32)
        indices = present.flatten().nonzero().squeeze(1)  # (total_tokens,)
        if not len(indices):
            raise InputError("attention_mask: masks every position; a batch needs a token")
        return cls(
            token_ids=token_ids.flatten()[indices].to(torch.int64),
            cu_seqlens=_cumulative(lengths),
            max_seqlen=int(lengths.max()),
            padded_shape=(token_ids.shape[0], token_ids.shape[1]),
            padded_indices=indices,
        )

    def to_padded(self, values: Tensor | None = None, *, padding_value: float = 0) -> Tensor:
        """Give each sequence a row of its own, filled up with `padding_value`.

        >>> PackedBatch.from_sequences([[5, 6, 7], [8, 9]]).to_padded(padding_value=1).tolist()
        [[5, 6, 7], [8, 9, 1]]

        Args:
            values: (total_tokens, ...), one entry per token; by default the token ids.
            padding_value: The value at padding.

        Returns:
            (num_sequences, max_seqlen, ...), padded on the right. For a batch made by
            `from_padded`, the original (rows, columns, ...) with every token in its old place.
        """
        values = self.token_ids if values is None else values
        if len(values) != self.total_tokens:
            raise InputError(
                f"values: got {_describe(values)}, expected ({self.total_tokens}, ...), "
                "an entry for each token"
            )
        if self.padded_shape is not None and self.padded_indices is not None:
            (rows, columns), indices = self.padded_shape, self.padded_indices
        else:
            rows, columns = self.num_sequences, self.max_seqlen
            indices = self.sequence_ids * columns + self.position_ids
        flat = values.new_full((rows * columns, *values.shape[1:]), padding_value)
        return torch.unflatten(flat.index_copy(0, indices, values), 0, (rows, columns))

    def filled_up(self, total_tokens: int, *, max_seqlen: int, token_id: int) -> "PackedBatch":
        """Bring a batch into a fixed shape, as compiled kernels need it; real tokens come first.

        The filling consists of sequences of its own, so that every row of a kernel's output is
        written. Empty sequences make the number of sequences a power of two.

        >>> batch = PackedBatch.from_sequences([[5, 6, 7], [8, 9]])
        >>> batch.filled_up(8, max_seqlen=4, token_id=3).cu_seqlens.tolist()
        [0, 3, 5, 8, 8]

        Args:
            total_tokens: The number of tokens to fill up to.
            max_seqlen: The longest sequence of any batch.
            token_id: The token to fill with.

        Raises:
            InputError: The batch has more tokens than that already, or a longer sequence.
        """
        missing = total_tokens - self.total_tokens
        if missing < 0 or self.max_seqlen > max_seqlen:
            raise InputError(
                f"filled_up: got {self.total_tokens} tokens with sequences of up to "
                f"{self.max_seqlen}, expected at most {total_tokens} and {max_seqlen}"
            )
        fill = range(self.total_tokens + max_seqlen, total_tokens, max_seqlen)
        borders = [*fill, total_tokens] if missing else []
        num_sequences = power_of_two(self.num_sequences + len(borders))
        borders += [total_tokens] * (num_sequences - self.num_sequences - len(borders))
        more = self.cu_seqlens.new_tensor(borders)
        return PackedBatch(
            token_ids=torch.cat((self.token_ids, self.token_ids.new_full((missing,), token_id))),
            cu_seqlens=torch.cat((self.cu_seqlens, more)),
            max_seqlen=max_seqlen,
        )

    def split(self, values: Tensor | None = None) -> tuple[Tensor, ...]:
        """Divide values into those of each sequence.

        Args:
            values: (total_tokens, ...), one entry per token; by default the token ids.

        Returns:
            One view (length, ...) per sequence.
        """
        values = self.token_ids if values is None else values
        known = self.num_tokens_each
        return torch.split(values, self.lengths.tolist() if known is None else list(known))

    @property
    def total_tokens(self) -> int:
        """The number of tokens of all sequences together."""
        return self.token_ids.shape[0]

    @property
    def num_sequences(self) -> int:
        """The number of sequences."""
        return self.cu_seqlens.shape[0] - 1

    @cached_property
    def lengths(self) -> Tensor:
        """(num_sequences,) int64. Length of each sequence in tokens."""
        return self.cu_seqlens.diff().to(torch.int64)

    @cached_property
    def sequence_ids(self) -> Tensor:
        """(total_tokens,) int64. Which sequence each token belongs to."""
        sequences = torch.arange(self.num_sequences, device=self.token_ids.device)
        return sequences.repeat_interleave(self.lengths, output_size=self.total_tokens)

    @cached_property
    def position_ids(self) -> Tensor:
        """(total_tokens,) int64. Position of each token in its own sequence, from 0."""
        positions = torch.arange(self.total_tokens, device=self.token_ids.device)
        return positions - self.cu_seqlens[self.sequence_ids]

    def pin_memory(self) -> "PackedBatch":
        """Copy the batch into memory from which a GPU can copy while the CPU continues."""
        return replace(
            self, token_ids=self.token_ids.pin_memory(), cu_seqlens=self.cu_seqlens.pin_memory()
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "PackedBatch":
        """Copy the batch to a device.

        Args:
            device: The device, such as "cuda".
            non_blocking: Whether the CPU may continue before the copy is done; see `pin_memory`.
        """
        indices = self.padded_indices
        return replace(
            self,
            token_ids=self.token_ids.to(device, non_blocking=non_blocking),
            cu_seqlens=self.cu_seqlens.to(device, non_blocking=non_blocking),
            padded_indices=None if indices is None else indices.to(device),
        )


def _as_ids(sequence: Sequence[int] | np.ndarray | Tensor, index: int) -> Tensor:
    """Return the ids of one sequence as (length,) int64, checked."""
    if isinstance(sequence, np.ndarray):
        sequence = sequence.astype(np.int64) if sequence.dtype.kind == "u" else sequence
    try:
        ids = torch.as_tensor(sequence)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"sequence {index}: not a list of token ids: {error}") from None
    if ids.ndim == 1 and len(ids) == 0:
        raise InputError(f"sequence {index} is empty: each needs at least one token")
    if ids.ndim != 1 or ids.is_floating_point() or ids.dtype == torch.bool:
        raise InputError(f"sequence {index}: got {_describe(ids)}, expected a list of token ids")
    return ids.to(torch.int64)


def _cumulative(lengths: Tensor) -> Tensor:
    """Return the (n + 1,) int32 cumulative sums of (n,) lengths, from 0."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(torch.int32)


def power_of_two(number: int) -> int:
    """Return the lowest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
