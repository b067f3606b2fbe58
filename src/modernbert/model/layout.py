"""What attention kernels derive from a batch's borders, once per forward pass and not per layer."""

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from modernbert.batch import PackedBatch, power_of_two
from modernbert.model import flex
from modernbert.model.choices import AttentionChoice, choose_attention, has_flash3, has_varlen
from modernbert.model.gpu import has_kernels

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

MIN_BLOCK = 32


class Run(NamedTuple):
    """Neighbouring sequences of one length, in tokens, from row `start` on."""

    start: int
    num_sequences: int
    length: int


class Layout:
    """The borders of a batch's sequences, and the masks and runs that follow from them.

    Args:
        batch: The sequences, packed one after another.
        window: How far a token of a local layer sees on either side.
        attention: The back end to use.
        is_causal: Whether a token sees only itself and what stands before it.
        fuses: As of `Encoder`.
        float8: As of `Encoder`.

    Raises:
        ConfigError: The batch's device does not support the back end.
    """

    def __init__(
        self,
        batch: PackedBatch,
        window: int,
        *,
        attention: AttentionChoice = "auto",
        is_causal: bool = False,
        fuses: bool = False,
        float8: bool = False,
    ) -> None:
        self.batch = batch
        self.is_causal = is_causal
        self.window = window
        # A window may be wider than every text: what is allocated goes by the texts.
        self.block = max(min(window, power_of_two(batch.max_seqlen)), MIN_BLOCK)
        device = batch.token_ids.device
        self.attention = choose_attention(attention, device)
        self.has_varlen = has_varlen(device)
        self.has_flash3 = has_flash3(device)
        self.has_kernels = has_kernels(device)
        self._fuses = fuses
        self.float8 = float8
        self.on_accelerator = device.type != "cpu"
        self._flex_masks: dict[int | None, BlockMask] = {}

    @property
    def fuses(self) -> bool:
        """Whether kernels do what a compiler would fuse: for layers that it has not compiled."""
        return self.has_kernels and (self._fuses or not torch.compiler.is_compiling())

    @cached_property
    def borders(self) -> Tensor:
        """The borders, (num_sequences + 1,) int32, contiguous; they live as long as this object."""
        return self.batch.cu_seqlens.contiguous()

    @cached_property
    def borders_each(self) -> tuple[Tensor, Tensor]:
        """The first and the end row of each token's sequence, (total_tokens,) int32 each."""
        sequences = self.batch.sequence_ids
        return self.batch.cu_seqlens[sequences], self.batch.cu_seqlens[sequences + 1]

    @cached_property
    def runs(self) -> list[Run]:
        """The sequences in their order, with equal neighbours together and without empty ones."""
        runs: list[Run] = []
        start = 0
        for length in self.batch.lengths.tolist():
            if runs and runs[-1].length == length:
                runs[-1] = runs[-1]._replace(num_sequences=runs[-1].num_sequences + 1)
            elif length:
                runs.append(Run(start, 1, length))
            start += length
        return runs

    @property
    def num_blocks(self) -> int:
        """The number of blocks of `block` rows in the flat batch; the last may be partial."""
        return -(-self.batch.total_tokens // self.block)

    @cached_property
    def local_mask(self) -> Tensor:
        """The keys of three blocks that a middle row sees: (num_blocks, block, 3 x block) bool.

        They are those of its own sequence at most `window` away, and in a causal layout none that
        follows the row. Rows past the end see one another, so that no row is without a key.
        """
        size, device = self.block, self.batch.token_ids.device
        sequences = torch.full((self.num_blocks * size + 2 * size,), -1, device=device)
        inner = sequences[size:-size]
        inner[: self.batch.total_tokens] = self.batch.sequence_ids
        keys = sequences.unfold(0, 3 * size, size)  # (num_blocks, 3 x block)
        queries = inner.view(-1, size)  # (num_blocks, block)
        places = torch.arange(3 * size, device=device)
        distances = places[size : 2 * size, None] - places  # (block, 3 x block)
        near = distances.abs() <= self.window
        if self.is_causal:
            near &= distances >= 0
        return near & (queries[:, :, None] == keys[:, None, :])

    def prepare(self) -> None:
        """Compute everything that compiled layers will only read; on a GPU, or on request."""
        if self.attention == "flex":
            for window in (None, self.window):
                self.flex_mask(window)
        elif self.attention == "blocks" or (self.on_accelerator and not self.has_varlen):
            _ = self.runs, self.local_mask
        elif self.attention == "auto" and self.has_kernels:
            _ = self.borders_each

    def flex_mask(self, window: int | None) -> "BlockMask":
        """Return the block mask of FlexAttention for layers of one kind."""
        if window not in self._flex_masks:
            self._flex_masks[window] = flex.block_mask(self.batch, window, is_causal=self.is_causal)
        return self._flex_masks[window]
