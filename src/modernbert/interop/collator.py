"""A collator for `transformers.Trainer` that packs many sequences into one row without padding."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modernbert.data.masking import mask_tokens
from modernbert.data.shard_files import SpecialTokens
from modernbert.errors import InputError
from modernbert.interop.inputs import BORDERS, LONGEST

IGNORED = -100  # the label that transformers ignores
_KEY_LIMIT = 2**63 - 1


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
