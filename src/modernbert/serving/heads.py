"""The routes of models that have a head: classifiers, rerankers, taggers and masked models."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.inference.classifier import Classifier, as_scores
from modernbert.inference.entities import merged
from modernbert.inference.fill_mask import FillMask
from modernbert.inference.inputs import Text, TextEncoder
from modernbert.inference.words import TextOrWords
from modernbert.serving import late_interaction, schemas
from modernbert.serving.answers import require_finite
from modernbert.serving.encoding import as_pairs, encode_texts, require_fit
from modernbert.serving.refusal import empty, invalid, too_large
from modernbert.serving.service import Call

MOST_PREDICTIONS = 100
"""For one [MASK]."""

_MAX_CHARACTERS = 32_000_000
_ROWS_AT_ONCE = 256


async def predict(call: Call, request: schemas.PredictRequest) -> Any:
    """The labels of each text or pair, best first."""
    texts, is_list = as_pairs(request.inputs, "inputs")
    logits = torch.stack(await _logits(call, texts, request, "inputs"))
    classifier = _classifier(call)
    scores = logits if request.raw_scores else _scores(call, logits)
    answers = [
        [schemas.Prediction(each.score, each.label) for each in classifier.ranked(row)]
        for row in scores
    ]
    return answers if is_list else answers[0]


async def predict_or_classify(call: Call, request: schemas.PredictOrClassifyRequest) -> Any:
    """`predict`; for a request with `parameters`, a list for each text, as the hub answers."""
    parameters = request.parameters
    if parameters is None:
        return await predict(call, request)
    texts, _ = as_pairs(request.inputs, "inputs")
    logits = torch.stack(await _logits(call, texts, request, "inputs"))
    activations = {"sigmoid": torch.sigmoid, "softmax": lambda rows: rows.softmax(-1)}
    activate = activations.get(parameters.function_to_apply or "")
    scores = _scores(call, logits) if parameters.function_to_apply is None else logits
    return [
        [
            schemas.Prediction(each.score, each.label)
            for each in _classifier(call).ranked(row, parameters.top_k)
        ]
        for row in (scores if activate is None else activate(scores))
    ]


async def rerank(call: Call, request: schemas.RerankRequest) -> Any:
    """The texts by their scores, best first; among equals the earlier comes first."""
    if not request.texts:
        raise empty("texts")
    if call.model.multi_vector is not None:
        scores = (await late_interaction.score(call, request)).tolist()
    else:
        pairs: list[Text] = [(request.query, text) for text in request.texts]
        logits = torch.stack(await _logits(call, pairs, request, "texts"))
        scores = (logits if request.raw_scores else _scores(call, logits))[:, 0].tolist()
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return [
        schemas.Rank(index, scores[index], request.texts[index] if request.return_text else None)
        for index in order
    ]


async def tag(call: Call, request: schemas.TagRequest) -> Any:
    """The entities of each text."""
    tagger = call.model.tagger
    assert tagger is not None
    is_list = not isinstance(request.inputs, str)
    texts: list[TextOrWords] = [*request.inputs] if is_list else [str(request.inputs)]
    if not texts:
        raise empty("inputs")
    call.require_few(len(texts), "inputs")
    call.timing.characters += sum(sum(map(len, text)) for text in texts)
    encoded = await call.tokenize(encode_texts, tagger.encode, texts, "inputs")
    truncation = call.truncation(request)
    if truncation.side == "left":
        raise invalid("truncation_direction: words are cut on the right alone")
    require_fit(encoded, truncation, tagger.max_seqlen, "inputs")
    lane = call.model.lane("labels", lambda: tagger.compute)
    results = await call.compute(lane, [each.token_ids for each in encoded])
    answers = [
        _entities(text, tagger.labelled(each, result))
        for text, each, result in zip(texts, encoded, results, strict=True)
    ]
    return answers if is_list else answers[0]


async def fill_mask(call: Call, request: schemas.FillMaskRequest) -> Any:
    """The likeliest tokens for each [MASK]; those of a text's only mask are not put in a list."""
    filler = call.model.fill_mask
    assert filler is not None
    is_list = not isinstance(request.inputs, str)
    texts: list[Text] = [*request.inputs] if is_list else [str(request.inputs)]
    if not texts:
        raise empty("inputs")
    sequences = await _sequences(call, texts, request, "inputs")
    top_k = _require_masks(filler, sequences, request.parameters.top_k)
    lane = call.model.lane("masks", lambda: lambda batch: _likeliest(filler, batch))
    results = await call.compute(lane, sequences)
    answers = await call.off_loop(
        lambda: [
            _filled(filler, sequence, result, top_k)
            for sequence, result in zip(sequences, results, strict=True)
        ]
    )
    return answers if is_list else answers[0]


def _classifier(call: Call) -> Classifier:
    assert call.model.classifier is not None
    return call.model.classifier


async def _sequences(
    call: Call, texts: list[Text], request: schemas.Truncating, name: str
) -> list[list[int]]:
    call.require_few(len(texts), name)
    model, truncation = call.model, call.truncation(request)
    for text in texts:
        call.timing.characters += len(text) if isinstance(text, str) else sum(map(len, text))
    encoder = TextEncoder(model.tokenizer, model.max_seqlen, cut=truncation.side)
    encoded = await call.tokenize(encode_texts, encoder, texts, name)
    return [each.token_ids for each in require_fit(encoded, truncation, model.max_seqlen, name)]


async def _logits(
    call: Call, texts: list[Text], request: schemas.Truncating, name: str
) -> list[Tensor]:
    sequences = await _sequences(call, texts, request, name)
    classifier = _classifier(call)
    logits = await call.compute(call.model.lane("logits", lambda: classifier.compute), sequences)
    return [require_finite(row) for row in logits]


def _scores(call: Call, logits: Tensor) -> Tensor:
    """(rows, num_labels): what the classifier, or the reranker, says offline."""
    if call.model.reranker is not None:
        return torch.from_numpy(call.model.reranker.activated(logits.numpy()))
    return as_scores(logits, _classifier(call).model.settings.problem)


def _entities(text: TextOrWords, words: Any) -> list[schemas.TaggedEntity]:
    return [
        schemas.TaggedEntity(
            entity.label,
            entity.score,
            _stretch(text, entity.start, entity.end),
            entity.start,
            entity.end,
        )
        for entity in merged(words)
    ]


def _stretch(text: TextOrWords, start: int, end: int) -> str:
    return text[start:end] if isinstance(text, str) else " ".join(text[start:end])


def _require_masks(filler: FillMask, sequences: Sequence[list[int]], top_k: int) -> int:
    """How many predictions there are for each mask, when each text has one and not too many.

    Raises:
        Refusal: a text without a mask, or an answer that would be too large.
    """
    mask, characters = filler.tokenizer.mask_token_id, 0
    for index, sequence in enumerate(sequences):
        if not (num_masks := sequence.count(mask)):
            name = filler.tokenizer.mask_token
            raise invalid(f"inputs[{index}]: no {name} in it; write {name} where a token is wanted")
        characters += 5 * len(sequence) * num_masks * top_k
    if characters > _MAX_CHARACTERS:
        raise too_large("inputs: too many [MASK] in texts so long; send fewer, or a lower top_k")
    return min(top_k, filler.tokenizer.vocab_size)


def _likeliest(filler: FillMask, batch: PackedBatch) -> Sequence[tuple[Tensor, Tensor]]:
    """For each sequence the probabilities, (num_masks, k), and the ids of the best tokens."""
    model, most = filler.model, min(MOST_PREDICTIONS, filler.tokenizer.vocab_size)
    is_mask = batch.token_ids == filler.tokenizer.mask_token_id
    hidden = model.encoder(batch)[is_mask]
    best = [
        model.logits(rows)[:, : filler.tokenizer.vocab_size]
        .softmax(-1, dtype=torch.float32)
        .topk(most)
        for rows in hidden.split(_ROWS_AT_ONCE)
    ]
    numbers = torch.bincount(batch.sequence_ids[is_mask], minlength=batch.num_sequences).tolist()
    scores = torch.cat([each.values for each in best]).cpu().split(numbers)
    token_ids = torch.cat([each.indices for each in best]).cpu().split(numbers)
    return list(zip(scores, token_ids, strict=True))


def _filled(
    filler: FillMask, sequence: list[int], result: tuple[Tensor, Tensor], top_k: int
) -> Any:
    tokenizer = filler.tokenizer
    places = [place for place, each in enumerate(sequence) if each == tokenizer.mask_token_id]
    scores, token_ids = (values[:, :top_k].tolist() for values in result)
    answers = [
        [
            schemas.FilledMask(
                score,
                token_id,
                tokenizer.decode([token_id]),
                tokenizer.decode([*sequence[1:place], token_id, *sequence[place + 1 : -1]]),
            )
            for score, token_id in zip(*rows, strict=True)
        ]
        for place, *rows in zip(places, scores, token_ids, strict=True)
    ]
    return answers[0] if len(answers) == 1 else answers
