"""A collator for `transformers.Trainer` that packs: one row of many sequences, none of padding."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modernbert.data.masking import mask_tokens
from modernbert.data.shard_manifest import SpecialTokens
from modernbert.errors import InputError
from modernbert.interop.inputs import BORDERS, LONGEST

IGNORED = -100  # a label that transformers passes over
_KEY_LIMIT = 2**63 - 1


class DataCollatorWithPacking:
    """Joins sequences of any lengths to one row, for a model that is `accelerate`d.

    Each sequence sees itself alone, as if it were a row of its own. The same row given to a model
    that is not accelerated would let all see each other.

    tokenizer: of transformers.
    mlm_probability: the share of tokens to hide and predict, special ones never; of these 80%
        become [MASK], 10% another token, 10% stay. None for features that have their `labels`,
        one a token, such as those of a token classifier, or none. Draws come from torch's
        generator, which the trainer seeds.

    Raises:
        InputError: a share outside 0 to 1, or a tokenizer without special tokens to mask with.
    """

    def __init__(self, tokenizer: Any, *, mlm_probability: float | None = None) -> None:
        if mlm_probability is not None and not 0 < mlm_probability <= 1:
            raise InputError(
                f"mlm_probability: got {mlm_probability}, expected more than 0 and at most 1"
            )
        self.tokenizer = tokenizer
        self.mlm_probability = mlm_probability
        self._specials = None if mlm_probability is None else _special_tokens(tokenizer)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """One batch: input_ids and, where there are some, labels, (1, total_tokens) int64 each.

        features: each with `input_ids`, special tokens included, and perhaps `labels`.
        The borders are `cu_seq_lens_q` and `cu_seq_lens_k`, (num_sequences + 1,) int32, and the
        longest length `max_length_q` and `max_length_k`, as transformers names them.

        Raises:
            InputError: an empty sequence, or labels that are not one a token.
        """
        rows = [_as_array(feature, "input_ids") for feature in features]
        if not rows or not all(map(len, rows)):
            raise InputError("input_ids: a sequence is empty; each needs at least one token")
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
                    "a token; models with one label a sequence want padded batches"
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
    """(num_tokens,) int64."""
    value = feature.get(name)
    array = np.asarray(value.cpu() if isinstance(value, Tensor) else value)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"{name}: got {value!r:.40}, expected a list of whole numbers")
    return array.astype(np.int64)


def _special_tokens(tokenizer: Any) -> SpecialTokens:
    names = ("cls", "sep", "pad", "mask", "unk")
    ids: dict[str, Any] = {name: getattr(tokenizer, f"{name}_token_id", None) for name in names}
    if missing := [name for name, token_id in ids.items() if token_id is None]:
        raise InputError(f"tokenizer: has no {missing[0]} token; masking needs {', '.join(names)}")
    return SpecialTokens(**ids)
