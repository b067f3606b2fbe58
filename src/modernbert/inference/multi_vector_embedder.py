"""`MultiVectorEmbedder`: one vector per token, for late interaction (ColBERT)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import InputError, ModelFolderError
from modernbert.files import updated_folder
from modernbert.inference.batching import RunOptions, require_known
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
from modernbert.model.choices import PrecisionChoice
from modernbert.model.config_file import find_model
from modernbert.model.encoder import Encoder
from modernbert.model.multi_vector import MultiVectorModel
from modernbert.reading import user_path
from modernbert.tokenizer.tokenizer import Tokenizer


class MultiVectorOptions(RunOptions, total=False):
    """How texts become vectors.

    Attributes:
        pool_factor: Of documents, keep one vector for so many; see `pooled`.
    """

    pool_factor: int


class MultiVectorEmbedder(TextModel[Encoder]):
    """Computes one vector per token; queries and documents are compared by MaxSim.

    Args:
        model: The model, on any device and in any precision.
        tokenizer: The tokenizer that the encoder was trained with.
        settings: Prompts, lengths, expansion of queries, and which tokens are left out.

    Raises:
        InputError: The tokenizer has another vocabulary, or the model cannot read sequences that
            long.
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
        """Load a folder of PyLate or of a MultiVectorEncoder of sentence-transformers.

        Args:
            folder_or_hub_id: The folder of the model or of a run, or a hub id.
            precision: The precision to compute in.

        Raises:
            ModelFolderError: There is no such model, it has another kind, or it cannot be used.
            TokenizerError: The model has no tokenizer, or it cannot be used.
            ConfigError: A setting is not supported, or the device does not support the precision.
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

        If the folder exists already, all its files are replaced at one moment.

        Args:
            folder: The folder to write to.

        Raises:
            ModelFolderError: The folder cannot be written.
            TokenizerError: The tokenizer cannot be written.
        """
        settings = replace(self.settings, max_seqlen=self.max_seqlen)
        projections: Any = list(self.vectors_of.projections)
        with updated_folder(user_path(folder), error=ModelFolderError) as whole:
            self._trainable().save_pretrained(whole)
            self.tokenizer.save_pretrained(whole, model_max_length=self.max_seqlen)
            write_folder(whole, projections, settings)

    def encode_query(
        self, texts: str | Iterable[str], **options: Unpack[MultiVectorOptions]
    ) -> list[np.ndarray]:
        """Compute the vectors of each query.

        Texts longer than the model can read are truncated, and a `TruncationWarning` says how many
        were.

        Args:
            texts: One text, or any number of them.
            **options: As in `MultiVectorOptions`.

        Returns:
            (num_tokens, dim) float32 for each query; a list of one for a single text.

        Raises:
            InputError: Something is not a text, or an option is not valid.
        """
        return self._encode(texts, "query", options)

    def encode_document(
        self, texts: str | Iterable[str], **options: Unpack[MultiVectorOptions]
    ) -> list[np.ndarray]:
        """Compute vectors as `encode_query` does, for documents.

        Documents have another prompt and length, and some of their tokens may be left out.
        """
        return self._encode(texts, "document", options)

    def stream(
        self, texts: Iterable[str], side: Side, **options: Unpack[MultiVectorOptions]
    ) -> Iterator[list[np.ndarray]]:
        """Compute the vectors of any number of texts in bounded memory.

        Args:
            texts: The texts, read when they are needed.
            side: Whether they are queries or documents.
            **options: As in `MultiVectorOptions`.

        Yields:
            Lists of the vectors of texts, in the order of the texts.

        Raises:
            InputError: As in `encode_query`.
        """
        require_list(texts, "texts")
        require_known(options, MultiVectorOptions)
        factor = options.get("pool_factor", 1)
        if factor < 1 or (factor > 1 and side == "query"):
            raise InputError(f"pool_factor: got {factor}, expected 1 or more, and 1 for queries")
        blocks = self.blocks(
            self.use(side),
            texts,
            batch_tokens=options.get("batch_tokens"),
            on_progress=options.get("on_progress"),
        )
        return ([pooled(each, factor) for each in block] for block in blocks)

    def use(self, side: Side) -> Use[str, EncodedText, Tensor, np.ndarray]:
        """Describe how texts of one side become the vectors of those tokens that count."""
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
        """Compute how well each document answers each query.

        Args:
            queries: (num_tokens, dim) for each query.
            documents: (num_tokens, dim) for each document.

        Returns:
            (num_queries, num_documents) float32.
        """
        scores = max_sim(queries, documents)
        if self.settings.similarity == "meanmaxsim":
            scores /= np.array([[len(each)] for each in queries], np.float32)
        return scores

    def hidden(self, batch: PackedBatch, side: Side) -> Tensor:
        """Compute the encoder's output for one side, with gradients if they are enabled.

        Args:
            batch: The encoded texts.
            side: Whether they are queries or documents; [MASK]s that fill up queries may be unseen
                by the other tokens.

        Returns:
            (total_tokens, hidden_size).
        """
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
        """Return the encoder with its layers, which one packed for inference has released."""
        if not self.model.is_packed:
            return self.model
        if self._plain is None:
            assert self._source is not None
            plain = Encoder.from_pretrained(self._source).to(self.device)
            self._plain = plain.requires_grad_(False).eval()
        return self._plain


class SideVectors:
    """Computes the vectors of a batch of one side."""

    def __init__(self, embedder: MultiVectorEmbedder, side: Side) -> None:
        self.embedder, self.side = embedder, side
        ids = skipped_token_ids(embedder.tokenizer, embedder.settings, side)
        self.skipped = torch.tensor(ids, dtype=torch.int64, device=embedder.device)

    def __call__(self, batch: PackedBatch) -> Sequence[Tensor]:
        """Return (num_tokens, dim) float32, on the CPU, for each sequence."""
        vectors = self.embedder.vectors_of.project(self.embedder.hidden(batch, self.side).float())
        keep = counted(batch, self.skipped)
        lengths = torch.zeros_like(batch.lengths).index_add(0, batch.sequence_ids, keep.long())
        split: Sequence[Tensor] = vectors[keep].cpu().split(lengths.tolist())
        return split


_NUM_KEPT = 1
"""The first vectors, which stand for the whole text, stay as they are."""


def pooled(vectors: np.ndarray, factor: int) -> np.ndarray:
    """Replace the most similar vectors of a document by their mean (token pooling).

    This is the hierarchical pooling of Clavie et al. (arXiv 2409.14683), with Ward's criterion.

    >>> pooled(np.array([[9.0, 9], [1, 0], [0, 1], [1, 0], [0, 1]], np.float32), 2).tolist()
    [[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]]

    Args:
        vectors: (num_vectors, dim) float32.
        factor: How many vectors become one, on average; 1 leaves all.

    Returns:
        (fewer, dim) float32; vectors that were of length 1 are so again.
    """
    rest = vectors[_NUM_KEPT:]
    num = -(-len(rest) // factor)
    if num == len(rest):
        return vectors
    labels = _clusters(rest, num)
    means = np.zeros((num, vectors.shape[1]), np.float32)
    np.add.at(means, labels, rest)
    means /= np.bincount(labels)[:, None]
    if np.allclose(np.linalg.norm(rest, axis=1), 1, atol=1e-3):
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return np.concatenate([vectors[:_NUM_KEPT], means])


def _clusters(vectors: np.ndarray, num: int) -> np.ndarray:
    """Find the cluster of each vector, (num_vectors,) int64, numbered by their first vectors.

    The two clusters are joined whose joining adds the least to the squared distances from the
    means (Ward 1963), by the formula of Lance and Williams, until `num` are left.
    """
    squares = np.square(vectors).sum(1)
    costs = squares[:, None] + squares - 2 * vectors @ vectors.T
    np.fill_diagonal(costs, np.inf)
    sizes, labels = np.ones(len(vectors)), np.arange(len(vectors))
    for _ in range(len(vectors) - num):
        first, second = sorted(divmod(int(costs.argmin()), len(costs)))
        a, b = sizes[first], sizes[second]
        joined = (a + sizes) * costs[first] + (b + sizes) * costs[second]
        joined = (joined - sizes * costs[first, second]) / (a + b + sizes)
        costs[first] = costs[:, first] = joined
        costs[second] = costs[:, second] = costs[first, first] = np.inf
        sizes[first] += b
        labels[labels == second] = first
    numbers: np.ndarray = np.unique(labels, return_inverse=True)[1]
    return numbers
