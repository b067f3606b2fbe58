"""The models of retrieval during training: from texts to vectors, with gradients."""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.devices import filled
from modernbert.errors import SettingsError
from modernbert.inference.embedder import Embedder
from modernbert.inference.embedder_folder import Side, read_embedder
from modernbert.inference.inputs import EncodedText, TextEncoder
from modernbert.inference.loading import longest_sequence
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.multi_vector_folder import read_folder
from modernbert.inference.multi_vector_inputs import (
    MultiVectorSettings,
    SideEncoder,
    counted,
    skipped_token_ids,
)
from modernbert.inference.sparse_embedder import SparseEmbedder, SparseSettings, read_sparse_folder
from modernbert.kinds import model_kind, read_modules
from modernbert.model.config_file import find_model
from modernbert.model.encoder import Encoder
from modernbert.model.heads import MaskedLanguageModel, token_weights
from modernbert.model.multi_vector import MultiVectorModel, projection
from modernbert.tasks.ranking.recipe import LateInteractionRecipe, RetrieveRecipe, SparseRecipe
from modernbert.tokenizer.tokenizer import Tokenizer

MARKERS = {"query": "[unused0]", "document": "[unused1]"}


class RaggedVectors(NamedTuple):
    """The vectors of some texts, one text after the other.

    Attributes:
        values: (total_vectors, dim) float32.
        lengths: (num_texts,) int64, the number of vectors of each text.
    """

    values: Tensor
    lengths: Tensor

    def split(self) -> list[Tensor]:
        """Return (num_vectors, dim) for each text."""
        return list(self.values.split(self.lengths.tolist()))

    @classmethod
    def join(cls, texts: Sequence[Tensor]) -> "RaggedVectors":
        """Join the vectors of texts; the reverse of `split`."""
        lengths = torch.tensor([len(text) for text in texts], device=texts[0].device)
        return cls(torch.cat(list(texts)), lengths)


@dataclass(frozen=True)
class Sides:
    """Encodes the texts of queries and documents; it needs no model."""

    encoders: Mapping[Side, Callable[[list[str]], Sequence[EncodedText]]]
    prompts: Mapping[Side, str] = field(default_factory=dict)

    def __call__(self, texts: Sequence[str], side: Side) -> Sequence[EncodedText]:
        """Return the texts of one side with their token ids."""
        prompt = self.prompts.get(side, "")
        return self.encoders[side]([prompt + text for text in texts])


class Learner(nn.Module):
    """A retriever in training; its forward computes the vectors of one side's texts.

    Args:
        embedder: The model, which is trained in place and saved as what it is.
        sides: Encodes the texts of queries and documents.

    Attributes:
        scale: The default factor of similarities.
    """

    scale = 1.0

    def __init__(
        self, embedder: Embedder | SparseEmbedder | MultiVectorEmbedder, sides: Sides
    ) -> None:
        super().__init__()
        self.embedder, self.dim, self.sides = embedder, embedder.dim, sides

    def save(self, folder: Path) -> None:
        """Write a folder that the embedder's class and sentence-transformers load."""
        self.embedder.save_pretrained(folder)


def _sides_of(embedder: Embedder | SparseEmbedder, query_max_seqlen: int | None) -> Sides:
    """How both sides are encoded: with their prompts, and queries up to a length of their own."""
    longest, settings = embedder.max_seqlen, embedder.settings
    query = TextEncoder(embedder.tokenizer, min(query_max_seqlen or longest, longest))
    return Sides(
        {"query": query, "document": TextEncoder(embedder.tokenizer, longest)},
        {"query": settings.side_prompt("query"), "document": settings.side_prompt("document")},
    )


class TextLearner(Learner):
    """Learns one vector per text."""

    scale = 20.0
    embedder: Embedder

    def __init__(self, embedder: Embedder, query_max_seqlen: int | None = None) -> None:
        super().__init__(embedder, _sides_of(embedder, query_max_seqlen))
        self.encoder = embedder.encoder
        self.layers = embedder.layers  # whose parameters are trained too

    def forward(self, batch: PackedBatch, side: Side) -> RaggedVectors:
        hidden = self.encoder(filled(batch))[: batch.total_tokens]
        num_left_out = self.embedder.num_left_out(self.sides.prompts[side])
        pooled = self.embedder.pooled(hidden, batch, num_left_out)[:, : self.dim]
        return RaggedVectors(functional.normalize(pooled, dim=-1), torch.ones_like(batch.lengths))


class TokenLearner(Learner):
    """Learns one vector per token."""

    embedder: MultiVectorEmbedder

    def __init__(self, embedder: MultiVectorEmbedder) -> None:
        sides: tuple[Side, ...] = ("query", "document")
        tokenizer, settings = embedder.tokenizer, embedder.settings
        encoders = {
            side: SideEncoder(tokenizer, settings, side, embedder.max_seqlen) for side in sides
        }
        super().__init__(embedder, Sides(encoders))
        self.vectors_of = embedder.vectors_of
        self._skipped = {
            side: torch.tensor(skipped_token_ids(tokenizer, settings, side), dtype=torch.int64)
            for side in sides
        }

    def forward(self, batch: PackedBatch, side: Side) -> RaggedVectors:
        vectors = self.vectors_of.project(self.embedder.hidden(batch, side))
        keep = counted(batch, self._skipped[side].to(batch.token_ids.device))
        lengths = torch.zeros_like(batch.lengths).index_add(0, batch.sequence_ids, keep.long())
        return RaggedVectors(functional.normalize(vectors[keep], dim=-1), lengths)


class SparseLearner(Learner):
    """Learns weights of the vocabulary for a text, as one vector."""

    embedder: SparseEmbedder

    def __init__(self, embedder: SparseEmbedder, query_max_seqlen: int | None = None) -> None:
        super().__init__(embedder, _sides_of(embedder, query_max_seqlen))
        self.model = embedder.model

    def forward(self, batch: PackedBatch, side: Side) -> RaggedVectors:  # noqa: ARG002
        """Compute the vectors of a batch, (num_sequences, vocab_size); they are not of length 1."""
        hidden = self.model.encoder(filled(batch))[: batch.total_tokens]
        settings = self.embedder.settings
        weights = token_weights(
            self.model, hidden, batch, pooling=settings.pooling, activation=settings.activation
        )
        return RaggedVectors(weights, torch.ones_like(batch.lengths))


def sparse_learner(recipe: SparseRecipe) -> SparseLearner:
    """Make a sparse model to start from, out of a masked language model.

    Raises:
        ModelFolderError: There is no such model, or it has no head for masked tokens.
        TokenizerError: The model has no tokenizer.
        InputError: The model cannot read sequences that long.
    """
    folder = find_model(recipe.model, weights=True)
    training, data = recipe.training, recipe.data
    place, settings, is_lowered = folder, SparseSettings(pooling=training.pooling), False
    if model_kind(folder) == "sparse":
        place, settings, is_lowered = read_sparse_folder(folder)
    prompts = {**settings.prompts, **training.prompts}
    settings = replace(settings, prompts=prompts, max_seqlen=data.max_seqlen or settings.max_seqlen)
    tokenizer = Tokenizer.from_pretrained(place)
    tokenizer = tokenizer.lowercased() if is_lowered else tokenizer
    model = MaskedLanguageModel.from_pretrained(place)
    return SparseLearner(SparseEmbedder(model, tokenizer, settings), data.query_max_seqlen)


def text_learner(recipe: RetrieveRecipe) -> TextLearner:
    """Make a retriever with one vector per text to start from.

    If the folder holds a retriever already, its own pooling, prompts and lengths are used.

    Raises:
        ModelFolderError: There is no such model, or it cannot be used.
        TokenizerError: The model has no tokenizer.
        InputError: The model cannot read sequences that long.
        SettingsError: The model does not have that many dimensions.
    """
    folder = find_model(recipe.model, weights=True)
    found, settings = read_embedder(folder)
    training, data = recipe.training, recipe.data
    prompts = {**settings.prompts, **training.prompts}
    if not read_modules(folder):
        settings = replace(settings, pooling=training.pooling)
    settings = replace(
        settings,
        normalize=True,
        similarity="cosine",
        prompts=prompts,
        max_seqlen=data.max_seqlen or settings.max_seqlen,
    )
    encoder = Encoder.from_pretrained(found.encoder)
    tokenizer = Tokenizer.from_pretrained(found.encoder)
    tokenizer = tokenizer.lowercased() if found.is_lowered else tokenizer
    embedder = Embedder(encoder, tokenizer, settings, layers=found.layers)
    learner = TextLearner(embedder, data.query_max_seqlen)
    if (widest := max(training.matryoshka_dims, default=0)) > learner.dim:
        raise SettingsError(f"matryoshka_dims: got {widest}, but a vector has {learner.dim}")
    return learner


def token_learner(recipe: LateInteractionRecipe, seed: int) -> TokenLearner:
    """Make a multi-vector model to start from, with a new projection or the folder's own.

    Args:
        recipe: The recipe, which names the folder to start from.
        seed: The seed of a new projection.

    Raises:
        ModelFolderError: There is no such model, or it cannot be used.
        TokenizerError: The model has no tokenizer.
        InputError: The model cannot read sequences that long.
    """
    folder = find_model(recipe.model, weights=True)
    training, data = recipe.training, recipe.data
    if model_kind(folder) == "multi_vector":
        found = read_folder(folder)
        encoder = Encoder.from_pretrained(found.encoder)
        projections, settings, place = found.projections, found.settings, found.encoder
    else:
        encoder, place = Encoder.from_pretrained(folder), folder
        projections = [projection(encoder.config.hidden_size, training.dim, seed=seed)]
        skipped = tuple(string.punctuation) if training.skip_punctuation else ()
        settings = MultiVectorSettings(prompts=MARKERS, skiplist=skipped)
    prompts = {**settings.prompts, **training.prompts}
    tokenizer = Tokenizer.from_pretrained(place)
    longest_sequence(encoder.config, tokenizer, data.max_seqlen)
    settings = replace(
        settings,
        prompts=prompts,
        normalize=True,
        document_max_seqlen=data.max_seqlen or settings.document_max_seqlen,
        query_max_seqlen=data.query_max_seqlen or settings.query_max_seqlen,
    )
    model = MultiVectorModel(encoder, projections)
    return TokenLearner(MultiVectorEmbedder(model, tokenizer, settings))
