"""From a packed batch to one vector a text, as an embedder is asked for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.device_copies import to_host
from modernbert.errors import InputError
from modernbert.inference.batching import Observer
from modernbert.inference.embedder_settings import EmbedderSettings
from modernbert.model.encoder import Encoder
from modernbert.model.pooling import pool


class EncodeOptions(TypedDict, total=False):
    """How texts become vectors.

    prompt: a text to put before each; it counts more than `prompt_name`.
    prompt_name: of one of the model's prompts.
    normalize_embeddings: make each vector's length 1, after it is cut to `truncate_dim`.
    truncate_dim: keep so many numbers of each vector, for a model that was trained for it.
    batch_tokens: the most tokens that are computed at once.
    on_progress: is told after every batch.
    """

    prompt: str | None
    prompt_name: str | None
    normalize_embeddings: bool
    truncate_dim: int | None
    batch_tokens: int | None
    on_progress: Observer | None


def check_options(options: EncodeOptions, dim: int) -> None:
    """Refuse what would be passed over, or cannot be.

    dim: how many numbers the model's vectors have.

    Raises:
        InputError: an unknown option, or a `truncate_dim` that the model does not have.
    """
    known = EncodeOptions.__annotations__
    if unknown := [name for name in options if name not in known]:
        raise InputError(f"{unknown[0]}: no such option; expected one of {', '.join(known)}")
    width = options.get("truncate_dim")
    if width is not None and not 1 <= width <= dim:
        raise InputError(f"truncate_dim: got {width}, expected 1 to {dim}")


@dataclass(frozen=True, kw_only=True)
class PooledVectors:
    """What an embedder does with a batch.

    num_unpooled: how many tokens at the beginning of each sequence are not pooled: none, or
        [CLS] and the prompt's.
    truncate_dim: how many numbers of each vector are kept; None for all.
    normalize: whether the vectors get length 1 after that.
    """

    encoder: Encoder
    settings: EmbedderSettings
    num_unpooled: int = 0
    truncate_dim: int | None = None
    normalize: bool = False

    def __call__(self, batch: PackedBatch) -> Sequence[Tensor]:
        """For each sequence (dim,) float32, on the CPU."""
        hidden = self.encoder(batch).float()
        if self.num_unpooled:
            hidden, batch = without_beginnings(hidden, batch, self.num_unpooled)
        vectors = pool(hidden, batch, self.settings.pooling)
        if self.settings.normalize:
            vectors = functional.normalize(vectors)
        vectors = vectors[:, : self.truncate_dim]
        if self.normalize:
            vectors = functional.normalize(vectors)
        return to_host(vectors).unbind()


def without_beginnings(
    hidden: Tensor, batch: PackedBatch, num_tokens: int
) -> tuple[Tensor, PackedBatch]:
    """Leave out the first tokens of each sequence, but never its last.

    hidden: (total_tokens, width).
    """
    left_out = (batch.lengths - 1).clamp(max=num_tokens)
    keep = batch.position_ids >= left_out[batch.sequence_ids]
    borders = batch.cu_seqlens.clone()
    borders[1:] -= left_out.cumsum(0).to(torch.int32)
    kept = PackedBatch(
        token_ids=batch.token_ids[keep], cu_seqlens=borders, max_seqlen=batch.max_seqlen
    )
    return hidden[keep], kept
