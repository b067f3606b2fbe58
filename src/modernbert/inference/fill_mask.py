"""`FillMask`: which tokens a model expects where a text says [MASK]."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.inference.loading import load_for_inference, require_same_vocabulary
from modernbert.kinds import ModelKind
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.precision import PrecisionChoice
from modernbert.tokenizer.tokenizer import Tokenizer

__all__ = ["FillMask", "Prediction"]


@dataclass(frozen=True)
class Prediction:
    """One token that may stand at a [MASK].

    token: its text, with the space that it may begin with.
    token_id: its id.
    score: its probability.
    """

    token: str
    token_id: int
    score: float


class FillMask:
    """Fills in what [MASK] stands for.

    model: on any device, in any precision.
    tokenizer: the one that the model was trained with.

    Raises:
        InputError: a tokenizer of another vocabulary.
    """

    def __init__(self, model: MaskedLanguageModel, tokenizer: Tokenizer) -> None:
        require_same_vocabulary(model.config, tokenizer)
        # Foreign configs do not name the mask: theirs is the default, which says nothing.
        named, default = model.config.mask_token_id, EncoderConfig().mask_token_id
        if named not in (tokenizer.mask_token_id, default):
            raise InputError(
                f"tokenizer: its mask_token_id is {tokenizer.mask_token_id}, but the model's is "
                f"{named}; take the tokenizer that the model was trained with"
            )
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def from_pretrained(
        cls, folder_or_hub_id: Path | str, *, precision: PrecisionChoice = "auto"
    ) -> "FillMask":
        """Load a model and its tokenizer from one folder, or from the hub.

        precision: what to compute in; "auto" takes what is fastest here.

        Raises:
            ModelFolderError: no such model, or one that cannot be used.
            TokenizerError: no tokenizer beside it, or one that cannot be used.
            ConfigError: a precision that cannot be had here.
            InputError: a tokenizer of another vocabulary.
        """
        wanted: tuple[ModelKind, ...] = ("masked_lm", "sparse")
        return cls(*load_for_inference(MaskedLanguageModel, folder_or_hub_id, precision, wanted))

    def __call__(self, text: str, top_k: int = 5) -> list[list[Prediction]]:
        """The likeliest tokens for each [MASK] of a text, the masks in their order.

        top_k: how many for each, best first.

        Raises:
            InputError: a text without [MASK] or longer than the model reads, or a top_k that is
                not from 1 to the size of the vocabulary.
        """
        if not 1 <= top_k <= self.tokenizer.vocab_size:
            raise InputError(f"top_k: got {top_k}, expected 1 to {self.tokenizer.vocab_size}")
        best = self._probabilities(self._encode(text)).topk(top_k)
        return [
            [self._prediction(*each) for each in zip(token_ids, scores, strict=True)]
            for token_ids, scores in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def _encode(self, text: str) -> list[int]:
        token_ids = self.tokenizer.encode(text)
        longest = self.model.config.max_seqlen
        if len(token_ids) > longest:
            raise InputError(
                f"text: {len(token_ids)} tokens long, but the model reads {longest}; shorten it"
            )
        if self.tokenizer.mask_token_id not in token_ids:
            raise InputError(
                f"text: no {self.tokenizer.mask_token} in {_beginning(text)!r}; write "
                f"{self.tokenizer.mask_token} where the model is to fill in a token"
            )
        return token_ids

    @torch.no_grad()
    def _probabilities(self, token_ids: list[int]) -> Tensor:
        """(num_masks, vocab_size) float32."""
        device = self.model.decoder_weight.device
        batch = PackedBatch.from_sequences([token_ids], device=device)
        rows = (batch.token_ids == self.tokenizer.mask_token_id).nonzero().squeeze(1)
        logits: Tensor = self.model(batch, rows=rows)
        # The model's vocabulary may be padded beyond the tokenizer's.
        return logits[:, : self.tokenizer.vocab_size].softmax(-1, dtype=torch.float32)

    def _prediction(self, token_id: int, score: float) -> Prediction:
        return Prediction(self.tokenizer.decode([token_id]), token_id, score)


def _beginning(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "..."
