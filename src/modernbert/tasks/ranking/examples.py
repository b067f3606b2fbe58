"""The examples of a recipe in the form that its loss needs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

from modernbert.data.held_out import held_out
from modernbert.data.judged_texts import JudgedTexts
from modernbert.errors import InputError
from modernbert.inference.inputs import EncodedText
from modernbert.settings import to_mapping
from modernbert.tasks.ranking.data import RetrievalData, one_answer_each, read_retrieval_data
from modernbert.tasks.ranking.losses import DISTILLATION, IN_BATCH, LABELLED
from modernbert.tasks.ranking.recipe import RankedRows


@dataclass(frozen=True, kw_only=True)
class RankingExamples:
    """What a ranking learns from.

    Attributes:
        loss: The loss that was asked for, or that suits the rows.
        notes: What you should know about the rows, one line each.
    """

    data: RetrievalData
    loss: str
    notes: Sequence[str]


def training_data(settings: RankedRows) -> tuple[RetrievalData, RetrievalData | None]:
    """Read the training data, and divide off held-out queries if the recipe asks for a fraction.

    Raises:
        DocumentError: The data cannot be read.
        InputError: The fraction is less than one query.
    """
    data = read_retrieval_data(settings.train, settings.train_split, settings)
    if settings.dev_share is None:
        return data, None
    queries = list(data.known)
    chosen = held_out(queries, settings.dev_share)
    if not any(chosen):
        raise InputError(f"--dev {settings.dev}: is less than one query of {data.source}; raise it")
    sides: list[set[str]] = [set(), set()]
    for query, is_out in zip(queries, chosen, strict=True):
        sides[is_out].add(query)
    return data.only(sides[False]), replace(data.only(sides[True]), notes=())


def prepared(
    settings: RankedRows, data: RetrievalData, asked: str | None, *, plain: str
) -> RankingExamples:
    """Bring the examples of a recipe into the form that its loss needs.

    Args:
        settings: The rows that were read.
        data: The examples.
        asked: The loss that was asked for; None for the one that suits the rows.
        plain: The verb's loss that needs no teacher.

    Raises:
        InputError: No example can be used, or the examples lack what the loss needs.
    """
    has_scores = all(each.scores is not None for each in data.examples)
    loss = asked or ("margin" if has_scores else plain)
    if loss not in LABELLED:  # which learns all documents of a query, answers or not, side by side
        data = replace(data, examples=one_answer_each(data.examples))
    if loss in DISTILLATION:
        for row, each in enumerate(data.examples, start=1):
            if each.scores is None or len(each.documents) < 2:
                raise InputError(
                    f"{data.source}, example {row}: the loss {loss!r} needs scores of a positive "
                    f"and of one negative or more; take {plain!r}, or add them"
                )
    most = settings.num_negatives
    kept, examples = [], data.examples
    for each in examples:
        if loss in IN_BATCH and not each.relevant:
            continue
        end = None if most is None else each.relevant + most
        scores = None if each.scores is None else each.scores[:end]
        kept.append(replace(each, documents=each.documents[:end], scores=scores))
    if not kept:
        raise InputError(f"{data.source}: no query has a document that answers it")
    notes = [*data.notes, f"{data.source}: {len(kept):,} examples, {len(data.known):,} queries"]
    if left := len(examples) - len(kept):
        notes.append(f"{data.source}: {left:,} queries without an answer are left out")
    return RankingExamples(data=replace(data, examples=kept), loss=loss, notes=notes)


def held_out_notes(texts_of: Mapping[str, JudgedTexts | RetrievalData]) -> list[str]:
    """Return what you should know about the dev and test rows, one line each."""
    return [note for rows in texts_of.values() for note in rows.notes]


def cut_notes(source: str, name: str, texts: Sequence[EncodedText]) -> list[str]:
    """Say in one line how many texts were truncated; an empty list if none were.

    Args:
        source: The source of the texts.
        name: What they are, such as "documents".
        texts: The texts.
    """
    cut = [len(each.token_ids) for each in texts if each.is_truncated]
    if not cut:
        return []
    return [
        f"{source}: {len(cut):,} of {len(texts):,} {name} are longer than {max(cut):,} tokens and "
        "are cut there"
    ]


def fingerprint(
    settings: RankedRows, data: RetrievalData, scored: Mapping[str, JudgedTexts | RetrievalData]
) -> str:
    """Return the sha256 (hex) of the examples and of everything that is scored."""
    values = to_mapping(settings)
    lengths = {name: values.get(name) for name in ("max_seqlen", "query_max_seqlen")}
    digest = sha256(json.dumps(lengths).encode())
    rows: list[Any] = [asdict(example) for example in data.examples]
    for name, texts in scored.items():
        if isinstance(texts, RetrievalData):
            rows += [name, *(asdict(example) for example in texts.examples)]
        else:
            rows += [name, texts.queries, texts.judgements, *texts.documents.items()]
    for row in rows:
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def split_sizes(
    settings: RankedRows, data: RetrievalData, scored: Mapping[str, JudgedTexts | RetrievalData]
) -> dict[str, str]:
    """Describe the source and the size of each split."""
    sizes = {"train": f"{data.source}, {len(data.examples):,} examples"}
    for name, texts in scored.items():
        queries = len(texts.known if isinstance(texts, RetrievalData) else texts.queries)
        share = name == "dev" and settings.dev_share is not None
        source = f"{settings.dev} of {data.source}" if share else getattr(settings, name)
        sizes[name] = f"{source}, {queries:,} queries"
    return sizes
