"""`SparseEmbedder`: a text to weights of the vocabulary's tokens (SPLADE)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import ConfigError
from modernbert.inference.loading import load_for_inference, longest_sequence
from modernbert.json_files import read_object
from modernbert.kinds import CONFIG_FILE, TRANSFORMER_FILE, read_modules
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.precision import PrecisionChoice
from modernbert.tokenizer.tokenizer import Tokenizer

_POOLING = "SpladePooling"
_ROWS_AT_ONCE = 256


class SparseEmbedder:
    """The largest `log(1 + relu(logit))` of each token of the vocabulary over a text.

    model: a masked language model that was trained for this.
    """

    def __init__(
        self, model: MaskedLanguageModel, tokenizer: Tokenizer, max_seqlen: int | None = None
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.max_seqlen = longest_sequence(model.config, tokenizer, max_seqlen)

    @classmethod
    def from_pretrained(
        cls, folder: Path, *, precision: PrecisionChoice = "auto"
    ) -> "SparseEmbedder":
        """Load what sentence-transformers saved of a SparseEncoder.

        Raises:
            ModelFolderError: steps or settings that are not supported, or a broken model.
        """
        model, pooling = (folder / step.path for step in read_modules(folder))
        settings = read_object(pooling / CONFIG_FILE)
        for key, only in (("pooling_strategy", "max"), ("activation_function", "relu")):
            if settings.get(key, only) != only:
                raise ConfigError(f"{folder}: {key} {settings[key]} is not supported; {only} is")
        loaded = load_for_inference(MaskedLanguageModel, model, precision)
        limit = read_object(model / TRANSFORMER_FILE).get("max_seq_length")
        return cls(*loaded, max_seqlen=limit)

    def compute(self, batch: PackedBatch) -> Sequence[tuple[Tensor, Tensor]]:
        """For each sequence the ids of tokens that weigh something, (n,), and their weights."""
        hidden = self.model.encoder(batch)
        return [_sparse(self._weights(each)) for each in batch.split(hidden)]

    def _weights(self, hidden: Tensor) -> Tensor:
        """(tokens, hidden_size) to (vocab_size,) float32; few logits are held at a time."""
        most = [self.model.logits(rows).amax(0).float() for rows in hidden.split(_ROWS_AT_ONCE)]
        return torch.stack(most).amax(0).relu().log1p()


def _sparse(weights: Tensor) -> tuple[Tensor, Tensor]:
    token_ids = weights.nonzero().squeeze(1)
    return token_ids.cpu(), weights[token_ids].cpu()
