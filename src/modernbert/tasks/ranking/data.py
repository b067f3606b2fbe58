"""What retrieval learns from: queries, each with a document that answers it and others that do not.

Rows of a table with the columns `query`, `positive` and perhaps `negative`, `negative_1`, ...,
`negatives` (a list), and `scores` (a list, for the positive and then each negative); or rows of
`query`, `document` and `label`; or a folder of judged texts (see `data.judged_texts`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modernbert.data.judged_texts import JudgedTexts, is_judged_folder, read_judged_texts
from modernbert.data.rows.table import Table
from modernbert.data.rows.tables import read_table
from modernbert.errors import DocumentError

QUERIES = ("query", "anchor", "question", "sentence1", "text1")
POSITIVES = ("positive", "pos", "answer", "positives")
DOCUMENTS = ("document", "passage", "text", "sentence2", "text2", "context")
LABELS = ("label", "score", "relevance")


@dataclass(frozen=True, kw_only=True)
class RankedTexts:
    """A query and documents, of which the first answers it best.

    relevant: how many of them, from the first on, answer it.
    scores: what a teacher says of each; None without one.
    """

    query: str
    documents: tuple[str, ...]
    relevant: int = 1
    scores: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class RetrievalData:
    """Examples, and where they are from.

    known: for each query, all documents that are known to answer it.
    """

    source: str
    examples: Sequence[RankedTexts]
    known: dict[str, set[str]] = field(default_factory=dict)


def read_retrieval_data(source: Path | str, split: str = "train") -> RetrievalData:
    """Read a file, a data set, or a folder of judged texts.

    split: of the judgements of a folder.

    Raises:
        DocumentError: it cannot be read, or a row cannot be used.
    """
    if is_judged_folder(Path(source)):
        examples = _of_judged(read_judged_texts(source, split))
    else:
        examples = _of_table(read_table(source))
    known: dict[str, set[str]] = {}
    for each in examples:
        known.setdefault(each.query, set()).update(each.documents[: each.relevant])
    return RetrievalData(source=str(source), examples=examples, known=known)


def read_corpus(
    source: Path | str, data: RetrievalData, split: str, *, more: str | None = None
) -> list[str]:
    """All documents to search in, each once: those of the rows or of the folder, and more.

    more: a table with a column of texts.

    Raises:
        DocumentError: a table that cannot be read.
    """
    texts = dict.fromkeys(text for each in data.examples for text in each.documents)
    if is_judged_folder(Path(source)):
        texts.update(dict.fromkeys(read_judged_texts(source, split).documents.values()))
    if more is not None:
        table = read_table(more)
        column = table.find(("text", *DOCUMENTS), asked=None, option="the column text")
        texts.update(dict.fromkeys(table.texts(column)))
    return list(texts)


def as_judged_texts(data: RetrievalData, name: str) -> JudgedTexts:
    """The queries of examples, with the documents of all of them to search in."""
    queries = {text: str(number) for number, text in enumerate(data.known)}
    texts = dict.fromkeys(text for each in data.examples for text in each.documents)
    documents = {text: str(number) for number, text in enumerate(texts)}
    return JudgedTexts(
        name=name,
        queries={number: text for text, number in queries.items()},
        documents={number: text for text, number in documents.items()},
        judgements={
            queries[query]: {documents[text]: 1 for text in sorted(answers)}
            for query, answers in data.known.items()
            if answers
        },
    )


def _of_judged(judged: JudgedTexts) -> list[RankedTexts]:
    """An example for each document that answers a query; those judged at 0 are its negatives."""
    examples = []
    for query, judgements in judged.judgements.items():
        others = tuple(judged.documents[name] for name, score in judgements.items() if score <= 0)
        for name, score in sorted(judgements.items(), key=lambda each: -each[1]):
            if score > 0:
                documents = (judged.documents[name], *others)
                examples.append(RankedTexts(query=judged.queries[query], documents=documents))
    if not examples:
        raise DocumentError(f"{judged.name}: no judgement is above 0; there is nothing to learn")
    return examples


def _of_table(table: Table) -> list[RankedTexts]:
    query = table.find(QUERIES, asked=None, option="the column query")
    positive = table.first_of(POSITIVES)
    if positive is None:
        return _of_pairs(table, query)
    negatives = [name for name in table.columns if _is_negative(name)]
    scores = next((n for n in ("scores", "score", "teacher_scores") if n in table.columns), None)
    return [
        _example(table, index, query, positive, negatives, scores) for index in range(len(table))
    ]


def _of_pairs(table: Table, query: str) -> list[RankedTexts]:
    """Rows of a query, a document and a label: those of one query together, the answers first."""
    document = table.find((*POSITIVES, *DOCUMENTS), asked=None, option="the column positive")
    label = table.first_of(LABELS)
    queries, documents = table.texts(query), table.texts(document)
    if label is None:
        rows = zip(queries, documents, strict=True)
        return [RankedTexts(query=text, documents=(answer,)) for text, answer in rows]
    groups: dict[str, list[tuple[float, str]]] = {}
    for index, (text, answer) in enumerate(zip(queries, documents, strict=True)):
        score = _number(table.rows[index].get(label), table.where(index), label)
        groups.setdefault(text, []).append((score, answer))
    return [
        RankedTexts(
            query=text,
            documents=tuple(answer for _, answer in sorted(group, key=lambda each: -each[0])),
            relevant=sum(score > 0 for score, _ in group),
        )
        for text, group in groups.items()
    ]


def _example(
    table: Table, index: int, query: str, positive: str, negatives: list[str], scores: str | None
) -> RankedTexts:
    row, where = table.rows[index], table.where(index)
    answers = _texts(table, row.get(positive), positive, index)
    others = [text for name in negatives for text in _texts(table, row.get(name), name, index)]
    if not answers:
        raise DocumentError(f"{where}: column {positive!r}: got nothing, expected a text")
    given = None
    if scores is not None and row.get(scores) is not None:
        values = row[scores] if isinstance(row[scores], list) else [row[scores]]
        given = tuple(_number(value, where, scores) for value in values)
        if len(given) != len(answers) + len(others):
            raise DocumentError(
                f"{where}: {len(given)} scores for {len(answers) + len(others)} documents; give "
                "one for the positive and one for each negative"
            )
    return RankedTexts(
        query=table.text(row.get(query), query, index),
        documents=(*answers, *others),
        relevant=len(answers),
        scores=given,
    )


def _texts(table: Table, value: Any, column: str, index: int) -> list[str]:
    """One text, or a list of them; none where the row has none."""
    if value is None or value == "":
        return []
    values = value if isinstance(value, list | tuple) else [value]
    return [table.text(each, column, index) for each in values]


def _is_negative(name: str) -> bool:
    """`negative`, `negatives`, `neg`, and the same with a number."""
    return name.lower().rstrip("0123456789_") in ("negative", "negatives", "neg", "hard_negative")


def _number(value: Any, where: str, column: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise DocumentError(f"{where}: column {column!r}: got {value!r}, expected a number")
    return number
