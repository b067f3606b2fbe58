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
from modernbert.tasks.ranking.data import (
    RankedTexts,
    RetrievalData,
    one_answer_each,
    read_retrieval_data,
)
from modernbert.tasks.ranking.losses import DISTILLATION, IN_BATCH, LABELLED, LISTWISE
from modernbert.tasks.ranking.recipe import RankedRows
from modernbert.tasks.tuning.job import RowMixture


@dataclass(frozen=True, kw_only=True)
class RankingExamples:
    """What a ranking learns from.

    Attributes:
        loss: The loss that was asked for, or that suits the rows.
        notes: What you should know about the rows, one line each.
        num_dropped: How many queries, and how many negatives, are not learned from.
    """

    data: RetrievalData
    loss: str
    notes: Sequence[str]
    num_dropped: tuple[int, int] = (0, 0)

    def summary(self, num_cut: int) -> str:
        """Return in one line what is learned from, and what of the rows is not.

        Args:
            num_cut: How many texts are longer than the model reads.
        """
        examples = self.data.examples
        queries = {each.query for each in examples}
        positives = {
            (each.query, text) for each in examples for text in each.documents[: each.relevant]
        }
        negatives = {
            (each.query, text) for each in examples for text in each.documents[each.relevant :]
        }
        dropped_queries, dropped_negatives = self.num_dropped
        left_out = [
            (dropped_queries, "queries dropped"),
            (dropped_negatives, "negatives dropped"),
            (num_cut, "texts cut"),
        ]
        return ", ".join(
            [
                f"{len(queries):,} queries",
                f"{len(positives):,} positives",
                f"{len(negatives):,} negatives",
                *(f"{count:,} {what}" for count, what in left_out if count),
            ]
        )


def training_data(settings: RankedRows) -> tuple[RetrievalData, RetrievalData | None]:
    """Read the training data, and divide off held-out queries if the recipe asks for a fraction.

    Raises:
        DocumentError: The data cannot be read.
        InputError: The fraction is less than one query.
    """
    first, *more = (
        read_retrieval_data(source, settings.train_split, settings)
        for source, _ in settings.weighted
    )
    if settings.dev_share is None:
        return first.joined(more), None
    queries = list(first.known)
    chosen = held_out(queries, settings.dev_share)
    if not any(chosen):
        told = f"is less than one query of {first.source}; raise it"
        raise InputError(f"--dev {settings.dev}: {told}")
    sides: list[set[str]] = [set(), set()]
    for query, is_out in zip(queries, chosen, strict=True):
        sides[is_out].add(query)
    more = [each.only(each.known.keys() - sides[True]) for each in more]
    held = replace(first.only(sides[True]), notes=())
    return first.only(sides[False]).joined(more), held


def mixture_of(settings: RankedRows, examples: Sequence[RankedTexts]) -> RowMixture | None:
    """How rows of several data sets are mixed; None for one data set.

    Raises:
        InputError: A data set has no example that can be used.
    """
    if not settings.more:
        return None
    sources = [each.source for each in examples]
    for number, (name, _) in enumerate(settings.weighted):
        if number not in sources:
            raise InputError(f"{name}: has no example that can be used")
    return RowMixture(sources=sources, weights=[weight for _, weight in settings.weighted])


def prepared(
    settings: RankedRows, data: RetrievalData, asked: str | None, *, plain: str
) -> RankingExamples:
    """Bring the examples of a recipe into the form that its loss needs.

    Args:
        settings: The rows that were read.
        data: The rows of queries with their documents, as they were read.
        asked: The loss that was asked for; None for the one that suits the rows.
        plain: The verb's loss that needs no teacher.

    Raises:
        InputError: No example can be used, or the examples lack what the loss needs.
    """
    has_scores = all(each.scores is not None for each in data.examples)
    loss = asked or ("margin" if has_scores else plain)
    if loss not in LABELLED and loss not in LISTWISE:
        # The others learn all documents of a query, answers or not, side by side.
        data = replace(data, examples=one_answer_each(data.examples))
    if loss in DISTILLATION:
        for row, each in enumerate(data.examples, start=1):
            if each.scores is None or len(each.documents) < 2:
                raise InputError(
                    f"{data.source}, example {row}: the loss {loss!r} needs scores of a positive "
                    f"and of one negative or more; take {plain!r}, or add them"
                )
    most = settings.num_negatives
    kept = [
        each if most is None else each.first(each.relevant + most)
        for each in data.examples
        if _has_use(each, loss)
    ]
    if not kept:
        needs = "a document that answers it"
        if loss in LISTWISE:
            needs = f"documents of different labels or scores, from which {loss!r} learns"
        raise InputError(f"{data.source}: no query has {needs}")
    notes = list(data.notes)
    used = [each for each in data.examples if _has_use(each, loss)]
    if left := len(data.examples) - len(used):
        without = "different labels or scores" if loss in LISTWISE else "an answer"
        notes.append(f"{data.source}: {left:,} queries without {without} are left out")
    beyond = sum(map(_num_documents, used)) - sum(map(_num_documents, kept))
    return RankingExamples(
        data=replace(data, examples=kept), loss=loss, notes=notes, num_dropped=(left, beyond)
    )


def _num_documents(example: RankedTexts) -> int:
    return len(example.documents)


def _has_use(example: RankedTexts, loss: str) -> bool:
    """Whether a loss learns anything from an example."""
    if loss in LISTWISE:
        return len(set(example.wanted)) > 1
    return loss not in IN_BATCH or example.relevant > 0


def held_out_notes(texts_of: Mapping[str, JudgedTexts | RetrievalData]) -> list[str]:
    """Return what you should know about the dev and test rows, one line each."""
    return [note for rows in texts_of.values() for note in rows.notes]


def cut_notes(source: str, name: str, texts: Sequence[EncodedText]) -> list[str]:
    """Say in one line how many texts were truncated; an empty list if none were.

    Args:
        source: The source of the texts.
        name: What they are, such as "documents".
        texts: Texts, each of which knows whether it was truncated.
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
    rows: list[Any] = [_values_of(example) for example in data.examples]
    rows += [list(settings.weighted)] if settings.more else []
    for name, texts in scored.items():
        if isinstance(texts, RetrievalData):
            rows += [name, *(_values_of(example) for example in texts.examples)]
        else:
            rows += [name, texts.queries, texts.judgements, *texts.documents.items()]
    for row in rows:
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def _values_of(example: RankedTexts) -> dict[str, Any]:
    """What an example says, without what earlier versions did not know and it does not have."""
    values = asdict(example)
    later = ("grades", "source")
    return {name: value for name, value in values.items() if value or name not in later}


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
