"""What each route does: from a request's body to an answer, through tokenizer and engine."""

from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.inference.embedder import Embedder
from modernbert.inference.inputs import TextEncoder
from modernbert.serving import late_interaction, schemas
from modernbert.serving.answers import as_lists, require_finite, require_small
from modernbert.serving.encoding import (
    TextOrIds,
    Truncation,
    as_inputs,
    encode_inputs,
    require_fit,
)
from modernbert.serving.heads import fill_mask, predict, predict_or_classify, rerank, tag
from modernbert.serving.queue import Lane
from modernbert.serving.refusal import Refusal, empty, invalid
from modernbert.serving.service import Call

Answer = Callable[[Call, Any], Awaitable[Any]]


@dataclass(frozen=True)
class Route:
    """One thing that can be asked for.

    path: without the model's name, which may stand before it.
    ability: what a model needs for it; empty when each can.
    request, response: the types of the bodies.
    answer: makes the one of the other.
    """

    path: str
    ability: str
    summary: str
    request: type[Struct]
    response: Any
    answer: Answer

    @property
    def is_openai(self) -> bool:
        """Whether errors are written as clients of OpenAI expect them."""
        return self.path.endswith("/embeddings")


async def embed(call: Call, request: schemas.EmbedRequest) -> Any:
    """One vector for each input."""
    truncation = call.truncation(request)
    inputs = as_inputs(request.inputs, "inputs")
    vectors = await _pooled(call, inputs, truncation, request.prompt_name, "inputs")
    vectors = _finished(vectors, request.dimensions, request.normalize)
    return vectors.tolist()


async def embed_all(call: Call, request: schemas.EmbedAllRequest) -> Any:
    """One vector for each token of each input."""
    if call.model.multi_vector is not None:
        return await late_interaction.embed_side(call, request)
    truncation = call.truncation(request)
    inputs = as_inputs(request.inputs, "inputs")
    sequences = await _encoded(call, inputs, truncation, request.prompt_name, "inputs")
    require_small(sum(map(len, sequences)) * call.model.encoder.config.hidden_size, "inputs")
    encoder = call.model.encoder
    lane = call.model.lane("hidden", lambda: lambda batch: _hidden(encoder(batch), batch))
    return await call.off_loop(as_lists, await call.compute(lane, sequences))


async def embed_sparse(call: Call, request: schemas.EmbedSparseRequest) -> Any:
    """The weights of the vocabulary's tokens for each input."""
    sparse = call.model.sparse
    assert sparse is not None
    truncation = call.truncation(request)
    inputs = as_inputs(request.inputs, "inputs")
    sequences = await _encoded(call, inputs, truncation, request.prompt_name, "inputs")
    results = await call.compute(call.model.lane("sparse", lambda: sparse.compute), sequences)
    return [
        [schemas.SparseValue(*pair) for pair in zip(ids.tolist(), weights.tolist(), strict=True)]
        for ids, weights in (sparse.vector(*result) for result in results)
    ]


async def similarity(call: Call, request: schemas.SimilarityRequest) -> Any:
    """How alike one sentence is to each of others, as the model's training compared them."""
    parameters = request.parameters or schemas.SimilarityParameters()
    truncation = call.truncation(parameters)
    if not request.inputs.sentences:
        raise empty("inputs.sentences")
    texts: list[TextOrIds] = [request.inputs.source_sentence, *request.inputs.sentences]
    vectors = await _pooled(call, texts, truncation, parameters.prompt_name, "inputs", extra=1)
    embedder = _embedder(call)
    return embedder.similarity(vectors[:1], vectors[1:])[0].tolist()


async def embed_or_compare(call: Call, request: schemas.EmbedOrCompareRequest) -> Any:
    """`embed`, or for sentences to compare `similarity`."""
    if isinstance(request.inputs, schemas.SimilarityInput):
        asked = schemas.SimilarityRequest(inputs=request.inputs, parameters=request.parameters)
        return await similarity(call, asked)
    return await embed(call, request)


async def openai_embeddings(call: Call, request: schemas.OpenAIRequest) -> Any:
    """One vector of length 1 for each input, as OpenAI answers."""
    inputs = as_inputs(request.input, "input")
    truncation = call.truncation(schemas.Truncating())
    vectors = await _pooled(call, inputs, truncation, None, "input")
    vectors = _finished(vectors, request.dimensions, normalize=True)
    if request.encoding_format == "base64":
        rows = [b64encode(row.astype("<f4").tobytes()).decode() for row in vectors.numpy()]
    else:
        rows = vectors.tolist()
    usage = schemas.OpenAIUsage(call.timing.tokens, call.timing.tokens)
    data = [schemas.OpenAIEmbedding("embedding", row, index) for index, row in enumerate(rows)]
    return schemas.OpenAIResponse("list", data, call.model.name, usage)


async def tokenize(call: Call, request: schemas.TokenizeRequest) -> Any:
    """The tokens of each text, and where they stand in it."""
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    if not texts:
        raise empty("inputs")
    call.require_few(len(texts), "inputs")
    prompt = _prompt(call, request.prompt_name)
    return await call.tokenize(
        lambda: [_tokens(call, prompt + text, request.add_special_tokens) for text in texts]
    )


async def decode(call: Call, request: schemas.DecodeRequest) -> Any:
    """The text of each row of token ids."""
    rows = [ids for ids in as_inputs(list(request.ids), "ids") if not isinstance(ids, str)]
    call.require_few(len(rows), "ids")
    try:
        return await call.tokenize(
            lambda: call.model.tokenizer.decode_batch(
                rows, skip_special_tokens=request.skip_special_tokens
            )
        )
    except InputError as error:
        raise Refusal(422, "Tokenizer", f"ids: {error}") from None


def _embedder(call: Call) -> Embedder:
    assert call.model.embedder is not None
    return call.model.embedder


def _prompt(call: Call, name: str | None) -> str:
    prompted = call.model.embedder or call.model.sparse
    if prompted is None:
        if name is not None:
            raise invalid(f"prompt_name: got {name!r}, but the model has no prompts")
        return ""
    try:
        return prompted.settings.prompt(None, name)
    except InputError as error:
        raise invalid(str(error)) from None


async def _encoded(
    call: Call,
    inputs: Sequence[TextOrIds],
    truncation: Truncation,
    prompt_name: str | None,
    name: str,
    *,
    extra: int = 0,
) -> list[list[int]]:
    """The sequences of inputs, with a prompt before each."""
    call.require_few(len(inputs) - extra, name)
    prompt, model = _prompt(call, prompt_name), call.model
    encoder = TextEncoder(model.tokenizer, model.max_seqlen, cut=truncation.side)
    call.timing.characters += sum(len(each) for each in inputs if isinstance(each, str))
    encoded = await call.tokenize(encode_inputs, encoder, inputs, prompt, name)
    return [each.token_ids for each in require_fit(encoded, truncation, model.max_seqlen, name)]


async def _pooled(
    call: Call,
    inputs: Sequence[TextOrIds],
    truncation: Truncation,
    prompt_name: str | None,
    name: str,
    *,
    extra: int = 0,
) -> Tensor:
    """(num_inputs, dim) float32, as `Embedder.encode` gives them."""
    sequences = await _encoded(call, inputs, truncation, prompt_name, name, extra=extra)
    prompt = _prompt(call, prompt_name)
    vectors = torch.stack(await call.compute(_pooling_lane(call, prompt), sequences))
    return require_finite(vectors)


def _pooling_lane(call: Call, prompt: str) -> Lane:
    """Prompts that are not pooled have lanes of their own: how many tokens to leave out differs."""
    embedder = _embedder(call)
    num_left_out = embedder.num_left_out(prompt)
    return call.model.lane(
        ("pooled", num_left_out),
        lambda: lambda batch: embedder.compute(batch, num_left_out),
    )


def _finished(vectors: Tensor, dimensions: int | None, normalize: bool) -> Tensor:
    """Cut to some numbers, and then of length 1, as `Embedder.encode` does it."""
    if dimensions is not None and dimensions > vectors.shape[1]:
        raise invalid(f"dimensions: got {dimensions}, expected 1 to {vectors.shape[1]}")
    cut = vectors[:, :dimensions]
    return functional.normalize(cut) if normalize else cut


def _hidden(hidden: Tensor, batch: PackedBatch) -> Sequence[Tensor]:
    """For each sequence (length, hidden_size) float32, on the CPU, in memory of its own."""
    return [each.clone() for each in batch.split(hidden.float().cpu())]


def _tokens(call: Call, text: str, special_tokens: bool) -> list[schemas.SimpleToken]:
    tokenizer = call.model.tokenizer
    try:
        encoding = tokenizer.encode_with_offsets(text, special_tokens=special_tokens)
    except InputError as error:
        raise Refusal(422, "Tokenizer", f"inputs: {error}") from None
    special = set(tokenizer.special_token_ids)
    return [
        schemas.SimpleToken(token_id, tokenizer.id_to_token(token_id), True, None, None)
        if token_id in special
        else schemas.SimpleToken(token_id, text[start:end], False, start, end)
        for token_id, (start, end) in zip(encoding.token_ids, encoding.offsets, strict=True)
    ]


ROUTES = (
    Route(
        "/embed",
        "embedder",
        "One vector for each text.",
        schemas.EmbedRequest,
        list[list[float]],
        embed,
    ),
    Route(
        "/embed_all",
        "token_embedder",
        "One vector for each token of each text.",
        schemas.EmbedAllRequest,
        list[list[list[float]]],
        embed_all,
    ),
    Route(
        "/embed_sparse",
        "sparse",
        "The weights of the vocabulary's tokens for each text.",
        schemas.EmbedSparseRequest,
        list[list[schemas.SparseValue]],
        embed_sparse,
    ),
    Route(
        "/similarity",
        "embedder",
        "How alike a sentence is to each of others.",
        schemas.SimilarityRequest,
        list[float],
        similarity,
    ),
    Route(
        "/predict",
        "classifier",
        "The labels of texts, or of pairs of texts, best first.",
        schemas.PredictRequest,
        list[schemas.Prediction | list[schemas.Prediction]],
        predict,
    ),
    Route(
        "/rerank",
        "ranker",
        "Texts by how well they answer a query, best first.",
        schemas.RerankRequest,
        list[schemas.Rank],
        rerank,
    ),
    Route(
        "/tag",
        "tagger",
        "The entities of texts.",
        schemas.TagRequest,
        list[schemas.TaggedEntity | list[schemas.TaggedEntity]],
        tag,
    ),
    Route(
        "/fill-mask",
        "fill_mask",
        "The likeliest tokens for each [MASK].",
        schemas.FillMaskRequest,
        list[schemas.FilledMask | list[schemas.FilledMask | list[schemas.FilledMask]]],
        fill_mask,
    ),
    Route(
        "/tokenize",
        "",
        "The tokens of texts.",
        schemas.TokenizeRequest,
        list[list[schemas.SimpleToken]],
        tokenize,
    ),
    Route("/decode", "", "The texts of token ids.", schemas.DecodeRequest, list[str], decode),
    Route(
        "/v1/embeddings",
        "embedder",
        "Embeddings as OpenAI's route gives them.",
        schemas.OpenAIRequest,
        schemas.OpenAIResponse,
        openai_embeddings,
    ),
)

ROOT_ROUTES = (
    Route(
        "/embed",
        "embedder",
        "Texts to embed, or sentences to compare.",
        schemas.EmbedOrCompareRequest,
        list[Any],
        embed_or_compare,
    ),
    Route(
        "/predict",
        "classifier",
        "Texts to classify, as for /predict or as the hub's inference is asked.",
        schemas.PredictOrClassifyRequest,
        list[Any],
        predict_or_classify,
    ),
)
"""For `POST /`, to which the clients of the hub's inference send everything."""
