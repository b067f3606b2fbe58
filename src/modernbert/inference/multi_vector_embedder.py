"""`MultiVectorEmbedder`: a text to one vector a token, for late interaction (ColBERT)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import InputError, ModelFolderError
from modernbert.files import updated_folder
from modernbert.inference.batching import Observer
from modernbert.inference.embedder_folder import Side
from modernbert.inference.inputs import EncodedText, require_list
from modernbert.inference.loading import load_for_inference
from modernbert.inference.multi_vector_folder import read_folder, write_folder
from modernbert.inference.multi_vector_inputs import (
    MultiVectorSettings,
    SideEncoder,
    counted,
    expanded,
    hidden_of_queries,
    skipped_token_ids,
)
from modernbert.inference.similarity import max_sim
from modernbert.inference.text_model import TextModel, Use
from modernbert.model.config_file import find_model
from modernbert.model.encoder import Encoder
from modernbert.model.multi_vector import MultiVectorModel
from modernbert.model.precision import PrecisionChoice
from modernbert.tokenizer.tokenizer import Tokenizer


class MultiVectorOptions(TypedDict, total=False):
    """How texts become vectors.

    Attributes:
        batch_tokens: The most tokens that are computed at once.
        on_progress: Is told after every batch.
    """

    batch_tokens: int | None
    on_progress: Observer | None


class MultiVectorEmbedder(TextModel[Encoder]):
    """One vector for each token of a text; a query's are compared with a document's by MaxSim.

    Args:
        model: On any device, in any precision.
        tokenizer: The one that the encoder was trained with.
        settings: Markers, lengths, expansion of queries, and which tokens are left out.

    Raises:
        InputError: A tokenizer of another vocabulary, or lengths that the model cannot read.
    """

    def __init__(
        self,
        model: MultiVectorModel,
        tokenizer: Tokenizer,
        settings: MultiVectorSettings | None = None,
    ) -> None:
        self.settings = settings or MultiVectorSettings(normalize=model.normalize)
        super().__init__(model.encoder, tokenizer, max_seqlen=self.settings.max_seqlen)
        self.vectors_of, self.dim = model, model.dim
        self._source: Path | None = None
        self._plain: Encoder | None = None
        for side in ("query", "document"):
            self.settings.longest(side, self.max_seqlen)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder_or_hub_id: Path | str, *, precision: PrecisionChoice = "auto"
    ) -> "MultiVectorEmbedder":
        """Load a folder of sentence-transformers' MultiVectorEncoder, or of PyLate.

        Raises:
            ModelFolderError: No such model, one of another kind, or one that cannot be used.
            TokenizerError: No tokenizer beside it, or one that cannot be used.
            ConfigError: A setting that is not supported, or a precision that cannot be had here.
        """
        found = read_folder(find_model(folder_or_hub_id, weights=True, wanted=("multi_vector",)))
        encoder, tokenizer = load_for_inference(Encoder, found.encoder, precision)
        tokenizer = tokenizer.lowercased() if found.is_lowered else tokenizer
        model = MultiVectorModel(encoder, found.projections, normalize=found.settings.normalize)
        model.to(next(encoder.parameters()).device).requires_grad_(False)
        embedder = cls(model.eval(), tokenizer, found.settings)
        embedder._source = found.encoder
        return embedder

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a folder that `from_pretrained` and sentence-transformers load.

        Where the folder is there already, all its files change at one moment.

        Raises:
            ModelFolderError: The folder cannot be written.
            TokenizerError: As that, for the tokenizer.
        """
        settings = replace(self.settings, max_seqlen=self.max_seqlen)
        projections: Any = list(self.vectors_of.projections)
        try:
            with updated_folder(Path(folder).expanduser()) as whole:
                self._trainable().save_pretrained(whole)
                self.tokenizer.save_pretrained(whole, model_max_length=self.max_seqlen)
                write_folder(whole, projections, settings)
        except OSError as error:
            raise ModelFolderError(f"{folder}: cannot be written: {error}") from None

    def encode_query(
        self, texts: str | Iterable[str], **options: Unpack[MultiVectorOptions]
    ) -> list[np.ndarray]:
        """The vectors of each query, (num_tokens, dim) float32; of one text a list of one.

        Texts longer than the model reads are cut, and a `TruncationWarning` says how many.

        Raises:
            InputError: Something else than texts, or an option that cannot be.
        """
        return self._encode(texts, "query", options)

    def encode_document(
        self, texts: str | Iterable[str], **options: Unpack[MultiVectorOptions]
    ) -> list[np.ndarray]:
        """As `encode_query`, for documents: other markers and lengths, and tokens left out."""
        return self._encode(texts, "document", options)

    def stream(
        self, texts: Iterable[str], side: Side, **options: Unpack[MultiVectorOptions]
    ) -> Iterator[list[np.ndarray]]:
        """The vectors of any number of texts in bounded memory: lists of them, in order.

        Raises:
            InputError: As `encode_query`.
        """
        require_list(texts, "texts")
        if unknown := options.keys() - MultiVectorOptions.__annotations__:
            raise InputError(
                f"{min(unknown)}: no such option; expected batch_tokens or on_progress"
            )
        return (list(block) for block in self.blocks(self.use(side), texts, **options))

    def use(self, side: Side) -> Use[str, EncodedText, Tensor, np.ndarray]:
        """Texts of one side to the vectors of their tokens that count."""
        return Use(
            name=("vectors", side),
            encode=SideEncoder(self.tokenizer, self.settings, side, self.max_seqlen),
            compute=SideVectors(self, side),
            finish=lambda _, vectors: [each.numpy() for each in vectors],
            max_seqlen=self.settings.longest(side, self.max_seqlen),
        )

    def similarity(
        self, queries: Sequence[np.ndarray], documents: Sequence[np.ndarray]
    ) -> np.ndarray:
        """How well each document answers each query: (num_queries, num_documents) float32."""
        scores = max_sim(queries, documents)
        if self.settings.similarity == "meanmaxsim":
            scores /= np.array([[len(each)] for each in queries], np.float32)
        return scores

    def hidden(self, batch: PackedBatch, side: Side) -> Tensor:
        """(total_tokens, hidden_size). What the encoder makes of a batch of one side."""
        expansion = self.settings.expansion if side == "query" else None
        if expansion is None or expansion.attend:
            plain: Tensor = self.model(batch)
            return plain
        unseen = expanded(batch, self.tokenizer.sep_token_id)
        return hidden_of_queries(self._trainable(), batch, unseen)

    def _encode(
        self, texts: str | Iterable[str], side: Side, options: MultiVectorOptions
    ) -> list[np.ndarray]:
        blocks = self.stream([texts] if isinstance(texts, str) else texts, side, **options)
        return [vectors for block in blocks for vectors in block]

    def _trainable(self) -> Encoder:
        """The encoder with its layers, which one that is packed for inference has let go."""
        if self.model.engine is None:
            return self.model
        if self._plain is None:
            assert self._source is not None
            self._plain = Encoder.from_pretrained(self._source).requires_grad_(False).eval()
        return self._plain


class SideVectors:
    """What is done with a batch of one side."""

    def __init__(self, embedder: MultiVectorEmbedder, side: Side) -> None:
        self.embedder, self.side = embedder, side
        ids = skipped_token_ids(embedder.tokenizer, embedder.settings, side)
        self.skipped = torch.tensor(ids, dtype=torch.int64, device=embedder.device)

    def __call__(self, batch: PackedBatch) -> Sequence[Tensor]:
        """For each sequence (num_tokens, dim) float32, on the CPU."""
        vectors = self.embedder.vectors_of.project(self.embedder.hidden(batch, self.side).float())
        keep = counted(batch, self.skipped)
        lengths = torch.zeros_like(batch.lengths).index_add(0, batch.sequence_ids, keep.long())
        split: Sequence[Tensor] = vectors[keep].cpu().split(lengths.tolist())
        return split
