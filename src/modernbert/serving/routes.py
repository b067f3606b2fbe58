"""The routes of all models: from a request's body, through tokenizer and engine, to its answer."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from modernbert.errors import InputError
from modernbert.inference.batching import Encoded, WindowSettings, windows
from modernbert.inference.chunks import Chunking, ChunkSettings
from modernbert.inference.classifier import Classifier
from modernbert.inference.embedder import Embedder
from modernbert.inference.embedder_folder import Side
from modernbert.inference.inputs import EncodedText, TextEncoder
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.sparse_embedder import SparseEmbedder
from modernbert.inference.text_model import Use
from modernbert.serving import schemas
from modernbert.serving.answers import Lazy, Refusal, empty, invalid, too_large, too_many_tokens
from modernbert.serving.bodies import TextOrIds, Truncation, as_inputs, encode_ids_too
from modernbert.serving.heads import HEAD_ROUTES, Route, predict_or_classify
from modernbert.serving.service import Call
from modernbert.tokenizer.texts import Span, TextEncoding
from modernbert.tokenizer.tokenizer import Tokenizer

R = TypeVar("R")
O = TypeVar("O")  # noqa: E741

_PART = WindowSettings(max_size=1 << 16)  # a vector for each of their tokens is held at once

MAX_NUMBERS = 1 << 23
"""Of an answer: 8 million numbers are about 150 MB of JSON."""


async def embed(call: Call, request: schemas.EmbedRequest) -> Any:
    """Return one vector for each input, or for each of its pieces."""
    inputs = as_inputs(request.inputs, "inputs")
    if request.chunks is not None:
        return await _embed_chunks(call, inputs, request, request.chunks)
    return await _pooled(
        call,
        inputs,
        "inputs",
        call.truncation(request),
        prompt_name=request.prompt_name,
        dimensions=request.dimensions,
        normalize=request.normalize,
    )


async def _embed_chunks(
    call: Call, inputs: Sequence[TextOrIds], request: schemas.EmbedRequest, chunks: schemas.Chunking
) -> list[list[schemas.Chunk]]:
    """Compute the vectors of each text's pieces, a few texts at a time, to save memory."""
    if not all(isinstance(each, str) for each in inputs):
        raise invalid("inputs: got token ids, but only texts are divided into pieces")
    if chunks.borders is not None and len(chunks.borders) != len(inputs):
        raise invalid(f"chunks.borders: got {len(chunks.borders)}, expected {len(inputs)}")
    settings = ChunkSettings(by=chunks.by, num_tokens=chunks.num_tokens)
    ways: Sequence[Chunking] = chunks.borders or [settings] * len(inputs)
    embedder = call.model.part(Embedder)
    try:
        use = embedder.chunk_use(
            prompt=_prompt(call, request.prompt_name),
            truncate_dim=request.dimensions,
            normalize=request.normalize,
        )
    except InputError as error:
        raise invalid(str(error)) from None
    answers: list[list[schemas.Chunk]] = []
    left = MAX_NUMBERS
    for part in windows(zip(inputs, ways, strict=True), use.size, _PART):
        held = call.hold.num_bytes
        found = await call.run(use, part, "inputs", call.truncation(request))
        left -= (num_numbers := sum(each.vectors.size for each in found))
        if left < 0:
            raise too_large(
                f"inputs: the answer would be more than {MAX_NUMBERS:,} numbers; send fewer texts "
                "or larger pieces"
            )
        call.hold.shrink(held + 4 * num_numbers)
        answers += [list(map(_chunk, *each)) for each in found]
    return answers


def _chunk(border: Span, vector: Any) -> schemas.Chunk:
    return schemas.Chunk(*border, vector)


async def embed_all(call: Call, request: schemas.EmbedAllRequest) -> Any:
    """Return one vector per token of each input; a multi-vector model leaves some tokens out."""
    inputs = as_inputs(request.inputs, "inputs")
    use: Use[Any, Any, Any, np.ndarray]
    if call.model.can([MultiVectorEmbedder]):
        if not all(isinstance(each, str) for each in inputs):
            raise invalid(
                "inputs: got token ids, but this model reads only texts, to which it adds its "
                "prompts"
            )
        embedder = call.model.part(MultiVectorEmbedder)
        use, dim = embedder.use(_side(request.prompt_name)), embedder.dim
        truncation = call.right_alone(request)
    else:
        truncation = call.truncation(request)
        prompt = _prompt(call, request.prompt_name)
        use = _with_ids(call.model.part(Embedder).token_use(prompt=prompt, cut=truncation.side))
        dim = call.model.encoder.config.hidden_size

    def require_small(encoded: Sequence[Encoded]) -> None:
        numbers = dim * sum(len(each.token_ids) for each in encoded)
        if numbers > MAX_NUMBERS:
            raise too_large(f"inputs: the answer would be {numbers:,} numbers; send fewer texts")
        call.hold.add(4 * numbers)

    return await call.run(use, inputs, "inputs", truncation, check=require_small)


async def embed_sparse(call: Call, request: schemas.EmbedSparseRequest) -> Any:
    """Return the weights of the vocabulary's tokens for each input."""
    truncation, prompt = call.truncation(request), _prompt(call, request.prompt_name)
    use = _with_ids(call.model.part(SparseEmbedder).use(prompt=prompt, cut=truncation.side))
    found = await call.run(use, as_inputs(request.inputs, "inputs"), "inputs", truncation)
    return [_sparse_values(ids, weights) for ids, weights in found]


async def similarity(call: Call, request: schemas.SimilarityRequest) -> Any:
    """Compare one sentence with others, by the similarity of the model's training."""
    parameters = request.parameters or schemas.SimilarityParameters()
    if not request.inputs.sentences:
        raise empty("inputs.sentences")
    texts: list[TextOrIds] = [request.inputs.source_sentence, *request.inputs.sentences]
    truncation, name = call.truncation(parameters), parameters.prompt_name
    vectors = await _pooled(call, texts, "inputs", truncation, prompt_name=name)
    return call.model.part(Embedder).similarity(vectors[:1], vectors[1:])[0].tolist()


async def embed_or_compare(call: Call, request: schemas.EmbedOrCompareRequest) -> Any:
    """Answer as `embed`, or as `similarity` for sentences to compare."""
    if isinstance(request.inputs, schemas.SimilarityInput):
        asked = schemas.SimilarityRequest(inputs=request.inputs, parameters=request.parameters)
        return await similarity(call, asked)
    return await embed(call, request)


async def openai_embeddings(call: Call, request: schemas.OpenAIRequest) -> Any:
    """Return one vector of length 1 for each input, in OpenAI's format."""
    vectors = await _pooled(
        call,
        as_inputs(request.input, "input"),
        "input",
        call.truncation(schemas.Truncating()),
        dimensions=request.dimensions,
        normalize=True,
    )
    if request.encoding_format == "base64":
        rows = [b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        rows = list(vectors)
    usage = schemas.OpenAIUsage(call.timing.tokens, call.timing.tokens)
    data = [schemas.OpenAIEmbedding("embedding", row, index) for index, row in enumerate(rows)]
    return schemas.OpenAIResponse("list", data, call.model.name, usage)


async def tokenize(call: Call, request: schemas.TokenizeRequest) -> Any:
    """Return the tokens of each text and their places in it."""
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    if not texts:
        raise empty("inputs")
    prompt = _prompt(call, request.prompt_name)
    return await call.tokenize(
        sum(map(len, texts)),
        lambda: list(_tokens(call, [prompt + text for text in texts], request.add_special_tokens)),
    )


async def decode(call: Call, request: schemas.DecodeRequest) -> Any:
    """Return the text of each row of token ids."""
    rows = [ids for ids in as_inputs(list(request.ids), "ids") if not isinstance(ids, str)]
    try:
        return await call.tokenize(
            sum(map(len, rows)),
            lambda: call.model.tokenizer.decode_batch(
                rows, skip_special_tokens=request.skip_special_tokens
            ),
        )
    except InputError as error:
        raise Refusal(422, "Tokenizer", f"ids: {error}") from None


async def _pooled(
    call: Call,
    inputs: Sequence[TextOrIds],
    name: str,
    truncation: Truncation,
    *,
    prompt_name: str | None = None,
    dimensions: int | None = None,
    normalize: bool = False,
) -> np.ndarray:
    """Return (num_inputs, dim) float32, as `Embedder.encode` does."""
    embedder = call.model.part(Embedder)
    if dimensions is not None and dimensions > embedder.dim:
        raise invalid(f"dimensions: got {dimensions}, expected 1 to {embedder.dim}")
    use = embedder.use(
        prompt=_prompt(call, prompt_name),
        truncate_dim=dimensions,
        normalize=normalize,
        cut=truncation.side,
    )
    vectors: Any = await call.run(_with_ids(use), inputs, name, truncation)
    return np.stack(list(vectors))


def _with_ids(use: Use[str, EncodedText, R, O]) -> Use[Any, EncodedText, R, O]:
    """Return a use of texts that also accepts rows of token ids."""
    assert isinstance(use.encode, TextEncoder)
    changed: Any = replace(use, encode=encode_ids_too(use.encode), size=_num_characters)
    return changed  # type: ignore[no-any-return]


def _num_characters(item: TextOrIds) -> int:
    return len(item) if isinstance(item, str) else 0


def _prompt(call: Call, name: str | None) -> str:
    """Return the text of a prompt; empty if the model has no prompts."""
    parts = call.model.parts
    prompted = parts.get(Embedder) or parts.get(SparseEmbedder)
    if prompted is None:
        if name is not None:
            raise invalid(f"prompt_name: got {name!r}, but the model has no prompts")
        return ""
    try:
        return str(prompted.settings.prompt(None, name))
    except InputError as error:
        raise invalid(str(error)) from None


def _side(prompt_name: str | None) -> Side:
    sides: dict[str, Side] = {"query": "query", "document": "document"}
    if (found := sides.get(prompt_name or "document")) is None:
        raise invalid(f"prompt_name: got {prompt_name!r}, expected query or document")
    return found


def _sparse_values(ids: np.ndarray, weights: np.ndarray) -> Lazy:
    return Lazy(len(ids), lambda at: schemas.SparseValue(int(ids[at]), float(weights[at])))


def _tokens(call: Call, texts: Sequence[str], special_tokens: bool) -> Iterator[Lazy]:
    """Return the tokens of each text, together at most as many as a request may have."""
    tokenizer, room = call.model.tokenizer, call.settings.max_request_tokens
    special, num_special = set(tokenizer.special_token_ids), tokenizer.template.num_special(1)
    for text in texts:
        try:
            encoding = tokenizer.encode_with_offsets(
                text, special_tokens=special_tokens, max_seqlen=room + num_special + 1
            )
        except InputError as error:
            raise Refusal(422, "Tokenizer", f"inputs: {error}") from None
        room -= len(encoding.token_ids)
        if room < 0:
            raise too_many_tokens(call.settings.max_request_tokens)
        yield Lazy(len(encoding.token_ids), partial(_token, tokenizer, text, encoding, special))


def _token(
    tokenizer: Tokenizer, text: str, encoding: TextEncoding, special: set[int], place: int
) -> schemas.SimpleToken:
    token_id = encoding.token_ids[place]
    if token_id in special:
        return schemas.SimpleToken(token_id, tokenizer.id_to_token(token_id), True, None, None)
    start, end = encoding.offsets[place]
    return schemas.SimpleToken(token_id, text[start:end], False, start, end)


ROUTES = (
    Route(
        "/embed",
        (Embedder,),
        "One vector for each text, or for each piece of it.",
        schemas.EmbedRequest,
        list[list[float | schemas.Chunk]],
        embed,
    ),
    Route(
        "/embed_all",
        (Embedder, MultiVectorEmbedder),
        "One vector for each token of each text.",
        schemas.EmbedAllRequest,
        list[list[list[float]]],
        embed_all,
    ),
    Route(
        "/embed_sparse",
        (SparseEmbedder,),
        "The weights of the vocabulary's tokens for each text.",
        schemas.EmbedSparseRequest,
        list[list[schemas.SparseValue]],
        embed_sparse,
    ),
    Route(
        "/similarity",
        (Embedder,),
        "How alike a sentence is to each of others.",
        schemas.SimilarityRequest,
        list[float],
        similarity,
    ),
    *HEAD_ROUTES,
    Route(
        "/tokenize",
        (),
        "The tokens of texts.",
        schemas.TokenizeRequest,
        list[list[schemas.SimpleToken]],
        tokenize,
    ),
    Route("/decode", (), "The texts of token ids.", schemas.DecodeRequest, list[str], decode),
    Route(
        "/v1/embeddings",
        (Embedder,),
        "Embeddings as OpenAI's route gives them.",
        schemas.OpenAIRequest,
        schemas.OpenAIResponse,
        openai_embeddings,
    ),
)

ROOT_ROUTES = (
    Route(
        "/embed",
        (Embedder,),
        "Texts to embed, or sentences to compare.",
        schemas.EmbedOrCompareRequest,
        list[Any],
        embed_or_compare,
    ),
    Route(
        "/predict",
        (Classifier,),
        "Texts to classify, as for /predict or as the hub's inference is asked.",
        schemas.PredictOrClassifyRequest,
        list[Any],
        predict_or_classify,
    ),
)
"""For `POST /`, to which the clients of the hub's inference send everything."""
