"""What multi-vector models answer: one vector a token for each side, and texts ranked by MaxSim."""

import asyncio
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder, SideVectors
from modernbert.inference.multi_vector_inputs import SideEncoder
from modernbert.inference.multi_vector_settings import Side
from modernbert.serving import schemas
from modernbert.serving.answers import as_lists, require_finite, require_small
from modernbert.serving.encoding import encode_texts, require_fit
from modernbert.serving.refusal import empty, invalid
from modernbert.serving.service import Call


async def embed_side(call: Call, request: schemas.EmbedAllRequest) -> Any:
    """The vectors of each text as a document, or by `prompt_name` as a query."""
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    if not texts:
        raise empty("inputs")
    if not all(isinstance(text, str) for text in texts):
        raise invalid("inputs: got token ids, but what this model reads begins with markers")
    side = _side(request.prompt_name)
    whole = [str(text) for text in texts]
    sequences = await _encoded(call, whole, side, request, "inputs")
    require_small(sum(map(len, sequences)) * _embedder(call).dim, "inputs")
    return await call.off_loop(as_lists, await _vectors(call, sequences, side))


async def score(call: Call, request: schemas.RerankRequest) -> Tensor:
    """(num_texts,). How well each text answers the query."""
    query = await _encoded(call, [request.query], "query", request, "query")
    texts = await _encoded(call, request.texts, "document", request, "texts")
    queries, documents = await asyncio.gather(
        _vectors(call, query, "query"), _vectors(call, texts, "document")
    )
    compared = await call.off_loop(
        _embedder(call).similarity,
        [require_finite(each).numpy() for each in queries],
        [require_finite(each).numpy() for each in documents],
    )
    return torch.from_numpy(compared[0])


def _side(prompt_name: str | None) -> Side:
    sides: dict[str, Side] = {"query": "query", "document": "document"}
    if (found := sides.get(prompt_name or "document")) is None:
        raise invalid(f"prompt_name: got {prompt_name!r}, expected query or document")
    return found


def _embedder(call: Call) -> MultiVectorEmbedder:
    assert call.model.multi_vector is not None
    return call.model.multi_vector


async def _encoded(
    call: Call, texts: list[str], side: Side, request: schemas.Truncating, name: str
) -> list[list[int]]:
    """The sequences of texts of one side, marker and expansion included."""
    call.require_few(len(texts), name)
    embedder, truncation = _embedder(call), call.truncation(request)
    if truncation.side == "left":
        raise invalid("truncation_direction: this model's texts are cut on the right alone")
    call.timing.characters += sum(map(len, texts))
    encoder = SideEncoder(embedder.tokenizer, embedder.settings, side, embedder.max_seqlen)
    encoded = await call.tokenize(encode_texts, encoder, texts, name)
    longest = embedder.settings.longest(side, embedder.max_seqlen)
    return [each.token_ids for each in require_fit(encoded, truncation, longest, name)]


async def _vectors(call: Call, sequences: Sequence[Sequence[int]], side: Side) -> list[Tensor]:
    """For each sequence (num_vectors, dim) float32."""
    embedder = _embedder(call)
    lane = call.model.lane(("vectors", side), lambda: SideVectors(embedder, side))
    return await call.compute(lane, sequences)
