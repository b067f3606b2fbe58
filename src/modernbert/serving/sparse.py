"""`SparseEmbedder`: a text to weights of the vocabulary's tokens (SPLADE)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import ConfigError, ModelFolderError
from modernbert.inference.loading import load_for_inference, longest_sequence
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
        (_, model_path), (_, pooling_path) = _modules(folder)
        settings = _read(folder / pooling_path / "config.json")
        for key, only in (("pooling_strategy", "max"), ("activation_function", "relu")):
            if settings.get(key, only) != only:
                raise ConfigError(f"{folder}: {key} {settings[key]} is not supported; {only} is")
        loaded = load_for_inference(MaskedLanguageModel, folder / model_path, precision)
        limit = _read(folder / model_path / "sentence_bert_config.json").get("max_seq_length")
        return cls(*loaded, max_seqlen=limit)

    def compute(self, batch: PackedBatch) -> Sequence[tuple[Tensor, Tensor]]:
        """For each sequence the ids of tokens that weigh something, (n,), and their weights."""
        hidden = self.model.encoder(batch)
        return [_sparse(self._weights(each)) for each in batch.split(hidden)]

    def _weights(self, hidden: Tensor) -> Tensor:
        """(tokens, hidden_size) to (vocab_size,) float32; few logits are held at a time."""
        most = [self.model.logits(rows).amax(0).float() for rows in hidden.split(_ROWS_AT_ONCE)]
        return torch.stack(most).amax(0).relu().log1p()


def is_sparse(folder: Path) -> bool:
    """Whether a folder is a SparseEncoder's."""
    try:
        modules = _modules(folder)
    except ModelFolderError:
        return False
    return len(modules) == 2 and modules[1][0] == _POOLING


def _sparse(weights: Tensor) -> tuple[Tensor, Tensor]:
    token_ids = weights.nonzero().squeeze(1)
    return token_ids.cpu(), weights[token_ids].cpu()


def _modules(folder: Path) -> list[tuple[str, str]]:
    """The class and the folder of each step."""
    modules = _read(folder / "modules.json")
    try:
        return [(each["type"].rpartition(".")[2], each["path"]) for each in modules]
    except (KeyError, TypeError, AttributeError):
        raise ModelFolderError(f"{folder}/modules.json: expected a list of steps") from None


def _read(path: Path) -> Any:
    """The content of a JSON file; empty when there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path}: not a readable JSON file: {error}") from None
