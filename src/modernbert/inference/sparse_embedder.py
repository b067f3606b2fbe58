"""`SparseEmbedder`: weights of the vocabulary's tokens for a text (SPLADE)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.devices import to_host
from modernbert.errors import InputError, ModelFolderError
from modernbert.files import updated_folder
from modernbert.inference.batching import RunOptions, require_known
from modernbert.inference.embedder_folder import Prompted
from modernbert.inference.foreign_files import (
    SparseFile,
    SpladePoolingFile,
    TransformerFile,
    read_prompt_file,
    refuse_steps,
    write_files,
)
from modernbert.inference.inputs import CutSide, EncodedText, TextEncoder, require_list
from modernbert.inference.loading import load_for_inference
from modernbert.inference.text_model import TextModel, Use
from modernbert.json_files import read_settings
from modernbert.kinds import CONFIG_FILE, SETTINGS_FILE, TRANSFORMER_FILE, Module, read_modules
from modernbert.model.choices import PrecisionChoice
from modernbert.model.config_file import find_model
from modernbert.model.heads import MaskedLanguageModel, SparseActivation, token_weights
from modernbert.reading import user_path
from modernbert.settings import SparsePooling
from modernbert.tokenizer.tokenizer import Tokenizer

_POOLING_FOLDER = "1_SpladePooling"
_MODULES = "sentence_transformers.sparse_encoder.models."


class SparseVector(NamedTuple):
    """The tokens of the vocabulary for which a text has weights.

    Attributes:
        token_ids: (num_tokens,) int64, ascending.
        weights: (num_tokens,) float32, above 0.
    """

    token_ids: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SparseSettings(Prompted):
    """How the weights of a text are computed.

    Attributes:
        pooling: How the weights of a token at several positions become one.
        activation: What turns a logit into a weight.
        max_active_dims: The number of tokens to keep, those with the largest weights; None for all.
        max_seqlen: The longest sequence, in tokens; None for what the model can read.
    """

    pooling: SparsePooling = "max"
    activation: SparseActivation = "relu"
    max_active_dims: int | None = None
    max_seqlen: int | None = None


class SparseOptions(RunOptions, total=False):
    """How texts become sparse vectors.

    Attributes:
        prompt: A text to put before each text; it takes precedence over `prompt_name`.
        prompt_name: The name of one of the model's prompts.
        max_active_dims: The number of tokens to keep, instead of the model's own number.
    """

    prompt: str | None
    prompt_name: str | None
    max_active_dims: int | None


class SparseEmbedder(TextModel[MaskedLanguageModel]):
    """Computes weights of the vocabulary's tokens for texts, which are compared by products.

    Args:
        model: A masked language model that was trained for this, on any device.
        tokenizer: The tokenizer that the model was trained with.
        settings: How logits become weights, and prompts.

    Raises:
        InputError: The tokenizer has another vocabulary, or the model cannot read sequences that
            long.
    """

    model_class = MaskedLanguageModel
    kinds = ("sparse",)

    def __init__(
        self,
        model: MaskedLanguageModel,
        tokenizer: Tokenizer,
        settings: SparseSettings | None = None,
    ) -> None:
        self.settings = settings or SparseSettings()
        super().__init__(model, tokenizer, max_seqlen=self.settings.max_seqlen)
        self._source: Path | None = None

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder_or_hub_id: Path | str, *, precision: PrecisionChoice = "auto"
    ) -> "SparseEmbedder":
        """Load a folder of `finetune sparse` or of a SparseEncoder of sentence-transformers.

        Args:
            folder_or_hub_id: The folder of the model or of a run, or a hub id.
            precision: The precision to compute in.

        Raises:
            ModelFolderError: There is no such model, it has another kind, or it cannot be used.
            TokenizerError: The model has no tokenizer, or it cannot be used.
            ConfigError: The device does not support the precision.
        """
        folder = find_model(folder_or_hub_id, weights=True, wanted=cls.kinds)
        place, settings, is_lowered = read_sparse_folder(folder)
        model, tokenizer = load_for_inference(MaskedLanguageModel, place, precision)
        embedder = cls(model, tokenizer.lowercased() if is_lowered else tokenizer, settings)
        embedder._source = place
        return embedder

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a folder that `from_pretrained` and sentence-transformers load.

        Args:
            folder: The folder to write to.

        Raises:
            ModelFolderError: The folder cannot be written.
            TokenizerError: The tokenizer cannot be written.
        """
        is_packed = self.model.encoder.is_packed
        again = self._source if is_packed else None
        model = self.model if again is None else MaskedLanguageModel.from_pretrained(again)
        settings = replace(self.settings, max_seqlen=self.max_seqlen)
        with updated_folder(user_path(folder), error=ModelFolderError) as whole:
            model.save_pretrained(whole)
            self.tokenizer.save_pretrained(whole, model_max_length=self.max_seqlen)
            _write_files(whole, settings)

    @property
    def dim(self) -> int:
        """The number of tokens in the vocabulary."""
        return self.model.config.vocab_size

    def encode(self, texts: Iterable[str], **options: Unpack[SparseOptions]) -> list[SparseVector]:
        """Compute the sparse vector of each text.

        Texts longer than the model can read are truncated, and a `TruncationWarning` says how many
        were.

        Args:
            texts: Any number of texts.
            **options: As in `SparseOptions`.

        Returns:
            The vectors, in the order of the texts.

        Raises:
            InputError: Something is not a text, or an option is unknown or not valid.
        """
        return list(self.stream(texts, **options))

    def encode_query(
        self, texts: Iterable[str], **options: Unpack[SparseOptions]
    ) -> list[SparseVector]:
        """Compute vectors as `encode` does, with the prompt named `query`, if there is one."""
        return self.encode(texts, **self.settings.of_side("query", options))

    def encode_document(
        self, texts: Iterable[str], **options: Unpack[SparseOptions]
    ) -> list[SparseVector]:
        """Compute vectors as `encode` does, with the prompt for documents, if there is one.

        Its name is `document`, `passage` or `corpus`.
        """
        return self.encode(texts, **self.settings.of_side("document", options))

    def stream(
        self, texts: Iterable[str], **options: Unpack[SparseOptions]
    ) -> Iterator[SparseVector]:
        """Compute vectors as `encode` does, for any number of texts in bounded memory."""
        require_list(texts, "texts")
        require_known(options, SparseOptions)
        prompt = self.settings.prompt(options.get("prompt"), options.get("prompt_name"))
        blocks = self.blocks(
            self.use(prompt=prompt, max_active_dims=options.get("max_active_dims")),
            texts,
            batch_tokens=options.get("batch_tokens"),
            on_progress=options.get("on_progress"),
        )
        return (vector for block in blocks for vector in block)

    def use(
        self, *, prompt: str = "", max_active_dims: int | None = None, cut: CutSide = "right"
    ) -> Use[str, EncodedText, tuple[Tensor, Tensor], SparseVector]:
        """Describe how texts become sparse vectors.

        Args:
            prompt: A text to put before each text.
            max_active_dims: The number of tokens to keep, instead of the model's own number.
            cut: The side on which texts that are too long are truncated.

        Raises:
            InputError: The number is below 1.
        """
        if max_active_dims is not None and max_active_dims < 1:
            raise InputError(f"max_active_dims: got {max_active_dims}, expected 1 or more")
        return Use(
            name="sparse",
            encode=TextEncoder(
                self.tokenizer, self.max_seqlen, cut=cut, prompt=prompt, takes_pairs=False
            ),
            compute=self.compute,
            finish=lambda _, found: [self.vector(*each, max_active_dims) for each in found],
            max_seqlen=self.max_seqlen,
        )

    def compute(self, batch: PackedBatch) -> Sequence[tuple[Tensor, Tensor]]:
        """Return the ids of tokens with a weight, (n,), and the weights, for each sequence."""
        settings = self.settings
        weights = token_weights(
            self.model,
            self.model.encoder(batch),
            batch,
            pooling=settings.pooling,
            activation=settings.activation,
        )
        found = weights.nonzero()
        values = to_host(weights[found[:, 0], found[:, 1]])
        lengths = torch.bincount(found[:, 0], minlength=len(weights)).tolist()
        token_ids = to_host(found[:, 1].contiguous())
        return list(zip(token_ids.split(lengths), values.split(lengths), strict=True))

    def vector(self, token_ids: Tensor, weights: Tensor, most: int | None = None) -> SparseVector:
        """Make a sparse vector from what `compute` returned, with at most `most` tokens."""
        most = most or self.settings.max_active_dims
        if most is not None and len(weights) > most:
            kept = weights.topk(most).indices.sort().values
            token_ids, weights = token_ids[kept], weights[kept]
        return SparseVector(token_ids.numpy(), weights.float().numpy())

    def similarity(
        self, first: Sequence[SparseVector], second: Sequence[SparseVector]
    ) -> np.ndarray:
        """Compute the products of all pairs of vectors.

        Args:
            first: Vectors, such as those of queries.
            second: Vectors, such as those of documents.

        Returns:
            (len(first), len(second)) float32.
        """
        scores: np.ndarray = self.to_dense(first) @ self.to_dense(second).T
        return scores

    def to_dense(self, vectors: Sequence[SparseVector]) -> np.ndarray:
        """Return vectors including their zeros, (num_vectors, vocab_size) float32."""
        dense = np.zeros((len(vectors), self.dim), np.float32)
        for row, vector in zip(dense, vectors, strict=True):
            row[vector.token_ids] = vector.weights
        return dense

    def tokens(self, vector: SparseVector, top_k: int | None = None) -> dict[str, float]:
        """Return the tokens of a vector with their weights, the largest first.

        Args:
            vector: A vector of this model, as `encode` returns it.
            top_k: The number of tokens; all by default.
        """
        order = np.argsort(-vector.weights, kind="stable")[:top_k]
        names = (self.tokenizer.decode([int(vector.token_ids[place])]) for place in order)
        return dict(zip(names, vector.weights[order].tolist(), strict=True))


def read_sparse_folder(folder: Path) -> tuple[Path, SparseSettings, bool]:
    """Return the model's folder, how it is used, and whether texts are lowercased."""
    modules = read_modules(folder)
    if [each.kind for each in modules[1:]] != ["SpladePooling"]:
        raise refuse_steps(folder, modules, "a transformer and then SpladePooling are")
    place, pooling = (folder / each.path for each in modules)
    transformer = read_settings(TransformerFile, place / TRANSFORMER_FILE)
    said = read_prompt_file(SparseFile, folder)
    pooled = read_settings(SpladePoolingFile, pooling / CONFIG_FILE)
    settings = SparseSettings(
        pooling=pooled.pooling_strategy,
        activation=pooled.activation_function,
        max_active_dims=said.max_active_dims,
        max_seqlen=transformer.max_seq_length,
        prompts=said.prompts,
        default_prompt_name=said.default_prompt_name,
    )
    return place, settings, transformer.do_lower_case


def _write_files(folder: Path, settings: SparseSettings) -> None:
    modules = [
        Module(type=f"{_MODULES}MLMTransformer"),
        Module(type=f"{_MODULES}SpladePooling", path=_POOLING_FOLDER),
    ]
    said: dict[str, Any] = {
        "model_type": "SparseEncoder",
        "prompts": dict(settings.prompts),
        "default_prompt_name": settings.default_prompt_name,
        "similarity_fn_name": "dot",
    }
    if settings.max_active_dims is not None:
        said["max_active_dims"] = settings.max_active_dims
    files = {
        TRANSFORMER_FILE: {"max_seq_length": settings.max_seqlen, "do_lower_case": False},
        SETTINGS_FILE: said,
        f"{_POOLING_FOLDER}/{CONFIG_FILE}": {
            "pooling_strategy": settings.pooling,
            "activation_function": settings.activation,
            "word_embedding_dimension": None,
        },
    }
    write_files(folder, modules, files)
