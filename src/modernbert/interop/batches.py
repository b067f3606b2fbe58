"""Batches of transformers: a collator that packs them, and inputs as a `PackedBatch` and back.

Two forms are read: padded rows with a mask, and one row of many sequences with their borders, as
transformers' flattening collator and ours make it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.data.masking import mask_tokens
from modernbert.data.shard_files import SpecialTokens
from modernbert.errors import InputError

IGNORED = -100  # the label that transformers ignores
_KEY_LIMIT = 2**63 - 1
BORDERS, LONGEST = "cu_seq_lens_q", "max_length_q"
PACKED_KEYS = frozenset((BORDERS, LONGEST, "cu_seq_lens_k", "max_length_k", "seq_idx"))


class DataCollatorWithPacking:
    """Joins sequences of any lengths into one row, for a model made fast by `accelerate`.

    Each sequence attends only to itself, as if it had a row of its own. Do not give such a row to
    a model that is not accelerated: there, all sequences would attend to each other.
    """

    def __init__(self, tokenizer: Any, *, mlm_probability: float | None = None) -> None:
        """Make a collator.

        Args:
            tokenizer: A tokenizer of transformers.
            mlm_probability: The fraction of tokens to predict, never special ones. Of these, 80%
                become [MASK], 10% another token, and 10% stay. The random numbers come from
                torch's generator, which the trainer seeds. Leave it None if the features have
                `labels` of their own, one per token, or need none.

        Raises:
            InputError: The fraction is not between 0 and 1, or the tokenizer lacks a special
                token that masking needs.
        """
        if mlm_probability is not None and not 0 < mlm_probability <= 1:
            raise InputError(
                f"mlm_probability: got {mlm_probability}, expected more than 0 and at most 1"
            )
        self.tokenizer = tokenizer
        self.mlm_probability = mlm_probability
        self._specials = None if mlm_probability is None else _special_tokens(tokenizer)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make one batch.

        Args:
            features: Sequences with `input_ids`, including special tokens, and perhaps `labels`.

        Returns:
            `input_ids` and, if there are any, `labels`: (1, total_tokens) int64. `cu_seq_lens_q`
            and `cu_seq_lens_k`: (num_sequences + 1,) int32, the borders of the sequences.
            `max_length_q` and `max_length_k`: the longest length. The names are transformers'.

        Raises:
            InputError: A sequence is empty, or there is not one label per token.
        """
        rows = [_as_array(feature, "input_ids") for feature in features]
        if not rows or not all(map(len, rows)):
            raise InputError("input_ids: a sequence is empty; expected at least one token in each")
        token_ids, labels = np.concatenate(rows), self._labels(features, rows)
        if self._specials is not None:
            token_ids, labels = self._masked(token_ids, self._specials)
        lengths = torch.tensor([len(row) for row in rows])
        borders = torch.cat([torch.zeros(1), lengths.cumsum(0)]).to(torch.int32)
        longest = int(lengths.max())
        batch = {
            "input_ids": torch.from_numpy(token_ids)[None],
            BORDERS: borders,
            "cu_seq_lens_k": borders,
            LONGEST: longest,
            "max_length_k": longest,
        }
        return batch if labels is None else {**batch, "labels": torch.from_numpy(labels)[None]}

    def _labels(
        self, features: Sequence[Mapping[str, Any]], rows: Sequence[np.ndarray]
    ) -> np.ndarray | None:
        if self._specials is not None or "labels" not in features[0]:
            return None
        labels = [_as_array(feature, "labels") for feature in features]
        for row, given in zip(rows, labels, strict=True):
            if len(row) != len(given):
                raise InputError(
                    f"labels: got {len(given)} for a sequence of {len(row)} tokens, expected one "
                    "per token; models with one label per sequence need padded batches"
                )
        return np.concatenate(labels)

    def _masked(
        self, token_ids: np.ndarray, specials: SpecialTokens
    ) -> tuple[np.ndarray, np.ndarray]:
        first, second = torch.randint(_KEY_LIMIT, (2,)).tolist()
        masked = mask_tokens(
            token_ids,
            special_token_ids=specials,
            vocab_size=len(self.tokenizer),
            rate=self.mlm_probability or 0.0,
            key=(first, second),
        )
        labels = np.full_like(token_ids, IGNORED)
        labels[masked.masked_indices] = masked.labels
        return masked.token_ids, labels


def _as_array(feature: Mapping[str, Any], name: str) -> np.ndarray:
    """Return a field as (num_tokens,) int64."""
    value = feature.get(name)
    array = np.asarray(value.cpu() if isinstance(value, Tensor) else value)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"{name}: got {value!r:.40}, expected a list of integers")
    return array.astype(np.int64)


def _special_tokens(tokenizer: Any) -> SpecialTokens:
    names = ("cls", "sep", "pad", "mask", "unk")
    ids: dict[str, Any] = {name: getattr(tokenizer, f"{name}_token_id", None) for name in names}
    if missing := [name for name, token_id in ids.items() if token_id is None]:
        raise InputError(f"tokenizer: no {missing[0]} token; masking needs {', '.join(names)}")
    return SpecialTokens(**ids)


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
