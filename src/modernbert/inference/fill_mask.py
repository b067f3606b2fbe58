"""`FillMask`: the tokens that a model expects where a text has [MASK]."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Unpack, overload

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.devices import to_host
from modernbert.errors import InputError
from modernbert.inference.batching import RunOptions
from modernbert.inference.inputs import CutSide, EncodedText, TextEncoder, require_list
from modernbert.inference.text_model import TextModel, Use
from modernbert.model.config_file import unnamed_token_id
from modernbert.model.heads import MaskedLanguageModel
from modernbert.tokenizer.tokenizer import Tokenizer

_ROWS_AT_ONCE = 256
_USUALLY_COMPUTED = 100
"""So many tokens are found for each mask, so that requests for fewer share batches."""


@dataclass(frozen=True)
class Prediction:
    """A token that the model predicts for a [MASK].

    Attributes:
        token: The text of the token, with the space that it may begin with.
        token_id: The id of the token.
        score: Its probability.
    """

    token: str
    token_id: int
    score: float


class FilledMask(NamedTuple):
    """A prediction and the mask in a text that it is for.

    Attributes:
        token: As in `Prediction`.
        token_id: As in `Prediction`.
        score: As in `Prediction`.
        text_ids: The token ids of the text, including its masks.
        place: The index of this mask among them.
    """

    token: str
    token_id: int
    score: float
    text_ids: list[int]
    place: int

    @property
    def filled_ids(self) -> list[int]:
        """Return the token ids of the text with this token in place of the mask."""
        return [*self.text_ids[1 : self.place], self.token_id, *self.text_ids[self.place + 1 : -1]]


class FillMask(TextModel[MaskedLanguageModel]):
    """Predicts the tokens behind [MASK].

    Args:
        model: The model, on any device and in any precision.
        tokenizer: The tokenizer that the model was trained with.
        max_seqlen: The longest text, in tokens; by default what the model can read.

    Raises:
        InputError: The tokenizer has another vocabulary.
    """

    model_class = MaskedLanguageModel
    kinds = ("masked_lm", "sparse")

    def __init__(
        self, model: MaskedLanguageModel, tokenizer: Tokenizer, *, max_seqlen: int | None = None
    ) -> None:
        super().__init__(model, tokenizer, max_seqlen=max_seqlen)
        # Foreign configs do not name the mask: theirs is a stand-in, which says nothing.
        named = model.config.mask_token_id
        unnamed = unnamed_token_id("mask_token_id", model.config.vocab_size)
        if named not in (tokenizer.mask_token_id, unnamed):
            raise InputError(
                f"tokenizer: its mask_token_id is {tokenizer.mask_token_id}, but the model's is "
                f"{named}; use the tokenizer that the model was trained with"
            )

    @overload
    def __call__(self, text: str, top_k: int = 5) -> list[list[Prediction]]: ...

    @overload
    def __call__(self, text: list[str], top_k: int = 5) -> list[list[list[Prediction]]]: ...

    def __call__(
        self, text: str | list[str], top_k: int = 5
    ) -> list[list[Prediction]] | list[list[list[Prediction]]]:
        """The likeliest tokens for each [MASK] of a text, the masks in their order.

        Args:
            text: With one [MASK] or more in it; of a list those of each text, as `fill`.
            top_k: How many for each, best first.

        Raises:
            InputError: The text has no [MASK] or is longer than the model can read, or `top_k` is
                not from 1 to the size of the vocabulary.
        """
        if not isinstance(text, str):
            return self.fill(text, top_k)
        (predictions,) = self.fill([text], top_k)
        return predictions

    def fill(
        self, texts: Iterable[str], top_k: int = 5, **options: Unpack[RunOptions]
    ) -> list[list[list[Prediction]]]:
        """Predict the most likely tokens for each [MASK] of many texts.

        Args:
            texts: Any number of texts.
            top_k: The number of tokens for each [MASK], best first.
            **options: As in `RunOptions`.

        Returns:
            For each text, what `__call__` returns.
        """
        return list(self.stream(texts, top_k, **options))

    def stream(
        self, texts: Iterable[str], top_k: int = 5, **options: Unpack[RunOptions]
    ) -> Iterator[list[list[Prediction]]]:
        """Predict tokens as `fill` does, for any number of texts in bounded memory.

        Args:
            texts: Any number of texts, which are read as the results are taken.
            top_k: The number of tokens for each [MASK], best first.
            **options: As in `RunOptions`.

        Raises:
            InputError: A text has no [MASK] or is too long, or an option is not valid.
        """
        require_list(texts, "texts")
        use = self.use(top_k=top_k)
        strict = replace(use, encode=lambda items: self._whole(items, use.encode(items)))
        blocks = self.blocks(strict, texts, **options)
        return (
            [[Prediction(*each[:3]) for each in mask] for mask in masks]
            for block in blocks
            for masks in block
        )

    def use(
        self, *, top_k: int = 5, cut: CutSide = "right"
    ) -> Use[str, EncodedText, tuple[Tensor, Tensor], list[list[FilledMask]]]:
        """Describe how texts become the most likely tokens for each of their masks.

        Args:
            top_k: The number of tokens for each [MASK], best first.
            cut: The side on which texts that are too long are truncated.

        Raises:
            InputError: `top_k` is not from 1 to the size of the vocabulary.
        """
        vocab_size = self.tokenizer.vocab_size
        if not 1 <= top_k <= vocab_size:
            raise InputError(f"top_k: got {top_k}, expected 1 to {vocab_size}")
        computed = min(max(top_k, _USUALLY_COMPUTED), vocab_size)
        encoder = TextEncoder(self.tokenizer, self.max_seqlen, cut=cut, takes_pairs=False)
        return Use(
            name=("masks", computed),
            encode=lambda texts: self._with_masks(texts, encoder(texts)),
            compute=lambda batch: self.compute(batch, computed),
            finish=lambda encoded, found: [
                self._filled(*each, top_k) for each in zip(encoded, found, strict=True)
            ],
            max_seqlen=self.max_seqlen,
        )

    def compute(self, batch: PackedBatch, top_k: int) -> Sequence[tuple[Tensor, Tensor]]:
        """Return the probabilities, (num_masks, k), and ids of each sequence's best tokens."""
        is_mask = batch.token_ids == self.tokenizer.mask_token_id
        hidden = self.model.encoder(batch)[is_mask]
        # The model's vocabulary may be padded beyond the tokenizer's.
        size = self.tokenizer.vocab_size
        best = [
            self.model.logits(rows)[:, :size].softmax(-1, dtype=torch.float32).topk(top_k)
            for rows in hidden.split(_ROWS_AT_ONCE)
        ]
        lengths = torch.bincount(batch.sequence_ids[is_mask], minlength=batch.num_sequences)
        numbers = lengths.tolist()
        scores = to_host(torch.cat([each.values for each in best])).split(numbers)
        token_ids = to_host(torch.cat([each.indices for each in best])).split(numbers)
        return list(zip(scores, token_ids, strict=True))

    def _with_masks(self, texts: Sequence[str], encoded: list[EncodedText]) -> list[EncodedText]:
        """Return the texts if each has a mask.

        Raises:
            InputError: A text has none.
        """
        mask = self.tokenizer.mask_token
        for text, each in zip(texts, encoded, strict=True):
            if self.tokenizer.mask_token_id not in each.token_ids:
                raise InputError(
                    f"text: no {mask} in {_beginning(text)!r}; write {mask} where the model is to "
                    "fill in a token"
                )
        return encoded

    def _whole(self, texts: Sequence[str], encoded: list[EncodedText]) -> list[EncodedText]:
        """Return the texts if none was truncated.

        Raises:
            InputError: A text was too long.
        """
        for text, each in zip(texts, encoded, strict=True):
            if each.is_truncated:
                raise InputError(
                    f"text: {len(self.tokenizer.encode(text))} tokens long, but the model reads "
                    f"{self.max_seqlen}; shorten it"
                )
        return encoded

    def _filled(
        self, encoded: EncodedText, found: tuple[Tensor, Tensor], top_k: int
    ) -> list[list[FilledMask]]:
        tokenizer, ids = self.tokenizer, encoded.token_ids
        places = [at for at, each in enumerate(ids) if each == tokenizer.mask_token_id]
        scores, token_ids = (values[:, :top_k].tolist() for values in found)
        return [
            [
                FilledMask(tokenizer.decode([token]), token, score, ids, place)
                for score, token in zip(*best, strict=True)
            ]
            for place, *best in zip(places, scores, token_ids, strict=True)
        ]


def _beginning(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "..."
