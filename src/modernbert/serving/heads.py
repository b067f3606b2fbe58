"""The routes of models with a head; each names the classes of `inference` that can answer it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import torch
from msgspec import Struct
from torch import Tensor

from modernbert.inference.batching import Encoded
from modernbert.inference.classifier import Classifier
from modernbert.inference.fill_mask import FilledMask, FillMask
from modernbert.inference.inputs import Text
from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
from modernbert.inference.question_answerer import QuestionAnswerer
from modernbert.inference.reranker import Reranker
from modernbert.inference.tagger import Entity, Tagger, TextOrWords
from modernbert.serving import schemas
from modernbert.serving.answers import empty, invalid, too_large
from modernbert.serving.bodies import as_pairs
from modernbert.serving.service import Call

_MAX_CHARACTERS = 32_000_000
_MAX_SCORES = 1 << 19
_BYTES_OF_A_SCORE = 128

Activate = Callable[[Tensor], Tensor]

_FUNCTIONS: dict[str, Activate] = {
    "sigmoid": torch.sigmoid,
    "softmax": lambda rows: rows.softmax(-1),
    "none": lambda rows: rows,
}


Answer = Callable[[Call, Any], Awaitable[Any]]


@dataclass(frozen=True)
class Route:
    """One route: a path, the models that can answer it, and the function that answers.

    Attributes:
        path: The path, without the name of a model, which may precede it.
        abilities: Classes of `inference`, of which a model needs one; none if any model will do.
        summary: What it returns, in a sentence.
        request, response: The types of the bodies.
        answer: Computes the response to a request.
    """

    path: str
    abilities: tuple[type, ...]
    summary: str
    request: type[Struct]
    response: Any
    answer: Answer

    @property
    def is_openai(self) -> bool:
        """Whether errors are written as clients of OpenAI, Cohere and Jina expect them."""
        return self.path.startswith("/v")


async def predict(call: Call, request: schemas.PredictRequest) -> Any:
    """Return the labels of each text or pair, the best first."""
    texts, is_list = as_pairs(request.inputs, "inputs")
    activate = _FUNCTIONS["none"] if request.raw_scores else None
    answers = await _labels(call, texts, request, activate)
    return answers if is_list else answers[0]


async def predict_or_classify(call: Call, request: schemas.PredictOrClassifyRequest) -> Any:
    """Do as `predict`; for a request with `parameters`, answer a list per text, as the hub does."""
    parameters = request.parameters
    if parameters is None:
        return await predict(call, request)
    texts, _ = as_pairs(request.inputs, "inputs")
    activate = _FUNCTIONS.get(parameters.function_to_apply or "")
    return await _labels(call, texts, request, activate, parameters.top_k)


async def rerank(call: Call, request: schemas.RerankRequest) -> Any:
    """Return the texts by their scores, the best first; of equal scores, the earlier text."""
    if not request.texts:
        raise empty("texts")
    scores: Sequence[float]
    if call.model.can([MultiVectorEmbedder]):
        scores = await _max_sim(call, request)
    else:
        truncation = call.truncation(request)
        use = call.model.part(Reranker).use(is_raw=request.raw_scores, cut=truncation.side)
        pairs = [(request.query, text) for text in request.texts]
        scores = await call.run(use, pairs, "texts", truncation)
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return [
        schemas.Rank(index, scores[index], request.texts[index] if request.return_text else None)
        for index in order
    ]


async def rank_documents(call: Call, request: schemas.RankDocumentsRequest) -> Any:
    """Answer `rerank` in the format of Jina and Cohere, which truncate long texts."""
    texts = [each if isinstance(each, str) else each.text for each in request.documents]
    ranks = await _ranked(call, request.query, texts)
    results = [
        schemas.RankedDocument(
            each.index,
            each.score,
            schemas.Document(texts[each.index]) if request.return_documents else None,
        )
        for each in ranks[: request.top_n]
    ]
    return _ranked_documents(call, results)


async def rank_texts(call: Call, request: schemas.RankTextsRequest) -> Any:
    """Answer `rerank` in the format of Cohere's second version."""
    ranks = await _ranked(call, request.query, request.documents)
    results = [schemas.RankedDocument(each.index, each.score) for each in ranks[: request.top_n]]
    return _ranked_documents(call, results)


async def _ranked(call: Call, query: str, texts: list[str]) -> list[schemas.Rank]:
    if not texts:
        raise empty("documents")
    asked = schemas.RerankRequest(query=query, texts=texts, truncate=True)
    return await rerank(call, asked)  # type: ignore[no-any-return]


def _ranked_documents(call: Call, results: list[schemas.RankedDocument]) -> schemas.RankedDocuments:
    usage = schemas.RankedUsage(call.timing.tokens)
    return schemas.RankedDocuments(str(uuid4()), call.model.name, results, usage)


async def tag(call: Call, request: schemas.TagRequest) -> Any:
    """Return the entities of each text."""
    is_list = not isinstance(request.inputs, str)
    texts: list[TextOrWords] = [*request.inputs] if is_list else [str(request.inputs)]
    use, truncation = call.model.part(Tagger).use(), call.right_alone(request)
    found = await call.run(use, texts, "inputs", truncation)
    answers = [_entities(*each) for each in zip(texts, found, strict=True)]
    return answers if is_list else answers[0]


async def answer(call: Call, request: schemas.AnswerRequest) -> Any:
    """Return the answer to each question from its text."""
    inputs = request.inputs if isinstance(request.inputs, list) else [request.inputs]
    use = call.model.part(QuestionAnswerer).use(must_answer=request.must_answer)
    pairs = [(each.question, each.context) for each in inputs]
    found = await call.run(use, pairs, "inputs", call.right_alone(schemas.Truncating()))
    answers = [schemas.Answer(each.text, each.score, each.start, each.end) for each in found]
    return answers if isinstance(request.inputs, list) else answers[0]


async def fill_mask(call: Call, request: schemas.FillMaskRequest) -> Any:
    """Return the likeliest tokens for each [MASK]; those of a text's only mask are not nested."""
    is_list = not isinstance(request.inputs, str)
    texts: list[str] = [*request.inputs] if is_list else [str(request.inputs)]
    filler, truncation = call.model.part(FillMask), call.truncation(request)
    mask = filler.tokenizer.mask_token
    for index, text in enumerate(texts):
        if mask not in text:
            raise invalid(
                f"inputs[{index}]: contains no {mask}; write it where you want a prediction"
            )
    top_k = min(request.parameters.top_k, filler.tokenizer.vocab_size)

    def require_small(encoded: Sequence[Encoded]) -> None:
        masks = [each.token_ids.count(filler.tokenizer.mask_token_id) for each in encoded]
        lengths = [len(each.token_ids) for each in encoded]
        characters = 5 * top_k * sum(map(int.__mul__, masks, lengths))
        if characters > _MAX_CHARACTERS:
            raise too_large(f"inputs: too many {mask} in texts so long; send fewer of them")
        call.hold.add(characters)

    use = filler.use(top_k=top_k, cut=truncation.side)
    found = await call.run(use, texts, "inputs", truncation, check=require_small)
    answers = await call.off_loop(lambda: [_filled(filler, each) for each in found])
    return answers if is_list else answers[0]


async def _labels(
    call: Call,
    texts: list[Text],
    request: schemas.Truncating,
    activate: Activate | None,
    top_k: int | None = None,
) -> list[list[schemas.Prediction]]:
    truncation = call.truncation(request)
    if activate is None and call.model.can([Reranker]):
        activate = call.model.part(Reranker).activate
    classifier = call.model.part(Classifier)
    scores = len(texts) * min(top_k or len(classifier.labels), len(classifier.labels))
    if scores > _MAX_SCORES:
        raise too_large(f"inputs: the answer would be {scores:,} scores; send fewer texts")
    call.hold.add(_BYTES_OF_A_SCORE * scores)
    use = classifier.use(top_k=top_k, activate=activate, cut=truncation.side)
    found = await call.run(use, texts, "inputs", truncation)
    return [
        [schemas.Prediction(each.score, each.label, each.is_chosen) for each in labels]
        for labels in found
    ]


async def _max_sim(call: Call, request: schemas.RerankRequest) -> list[float]:
    """Score how well each text answers the query, by late interaction."""
    embedder, truncation = call.model.part(MultiVectorEmbedder), call.right_alone(request)
    queries, documents = await asyncio.gather(
        call.run(embedder.use("query"), [request.query], "query", truncation),
        call.run(embedder.use("document"), request.texts, "texts", truncation),
    )
    scores = await call.off_loop(embedder.similarity, queries, documents)
    return scores[0].tolist()  # type: ignore[no-any-return]


def _entities(text: TextOrWords, entities: Sequence[Entity]) -> list[schemas.TaggedEntity]:
    return [
        schemas.TaggedEntity(
            entity.label,
            entity.score,
            _stretch(text, entity.start, entity.end),
            entity.start,
            entity.end,
        )
        for entity in entities
    ]


def _stretch(text: TextOrWords, start: int, end: int) -> str:
    return text[start:end] if isinstance(text, str) else " ".join(text[start:end])


def _filled(filler: FillMask, masks: Sequence[Sequence[FilledMask]]) -> Any:
    answers = [
        [
            schemas.FilledMask(
                each.score, each.token_id, each.token, filler.tokenizer.decode(each.filled_ids)
            )
            for each in mask
        ]
        for mask in masks
    ]
    return answers[0] if len(answers) == 1 else answers


HEAD_ROUTES = (
    Route(
        "/predict",
        (Classifier,),
        "The labels of texts, or of pairs of texts, best first.",
        schemas.PredictRequest,
        list[schemas.Prediction | list[schemas.Prediction]],
        predict,
    ),
    Route(
        "/rerank",
        (Reranker, MultiVectorEmbedder),
        "Texts by how well they answer a query, best first.",
        schemas.RerankRequest,
        list[schemas.Rank],
        rerank,
    ),
    Route(
        "/v1/rerank",
        (Reranker, MultiVectorEmbedder),
        "Texts by how well they answer a query, as Jina's and Cohere's first route give them.",
        schemas.RankDocumentsRequest,
        schemas.RankedDocuments,
        rank_documents,
    ),
    Route(
        "/v2/rerank",
        (Reranker, MultiVectorEmbedder),
        "Texts by how well they answer a query, as Cohere's second route gives them.",
        schemas.RankTextsRequest,
        schemas.RankedDocuments,
        rank_texts,
    ),
    Route(
        "/tag",
        (Tagger,),
        "The entities of texts.",
        schemas.TagRequest,
        list[schemas.TaggedEntity | list[schemas.TaggedEntity]],
        tag,
    ),
    Route(
        "/answer",
        (QuestionAnswerer,),
        "The pieces of texts that answer questions.",
        schemas.AnswerRequest,
        schemas.Answer | list[schemas.Answer],
        answer,
    ),
    Route(
        "/fill-mask",
        (FillMask,),
        "The likeliest tokens for each [MASK].",
        schemas.FillMaskRequest,
        list[schemas.FilledMask | list[schemas.FilledMask | list[schemas.FilledMask]]],
        fill_mask,
    ),
)
"""The routes of models with a head."""
