"""What retrieval learns from: queries, each with a document that answers it and others that do not.

Rows of a table with the columns `query`, `positive` and perhaps `negative`, `negative_1`, ...,
`negatives` (a list), and `scores` (a list, for the positives and then the negatives); or rows of
`query`, `document` and `label`; FlagEmbedding's `pos`, `neg`, `pos_scores` and `neg_scores`;
Tevatron's `positive_passages` and `negative_passages`; DPR's `positive_ctxs` and
`hard_negative_ctxs`; without a header a query, a positive and negatives; or a folder of judged
texts (see `data.judged_texts`).
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modernbert.data.judged_texts import JudgedTexts, is_judged_folder, read_judged_texts
from modernbert.data.rows.cells import as_list, flag, is_missing, looks_like_list, number
from modernbert.data.rows.table import Table
from modernbert.data.rows.tables import read_table
from modernbert.data.settings import FileSettings
from modernbert.errors import DocumentError

QUERIES = ("query", "anchor", "question", "sentence1", "text1")
POSITIVES = (
    "positive",
    "positives",
    "pos",
    "positive_passages",
    "positive_ctxs",
    "answer",
    "answers",
)
DOCUMENTS = ("document", "passage", "text", "sentence2", "text2", "context")
LABELS = ("label", "score", "relevance")
NEGATIVES = (
    "negative",
    "negatives",
    "neg",
    "hard_negative",
    "hard_negatives",
    "negative_passages",
    "hard_negative_ctxs",
    "negative_ctxs",
)
SCORES = ("scores", "score", "teacher_scores")
POSITIVE_SCORES = ("pos_scores", "positive_scores")
NEGATIVE_SCORES = ("neg_scores", "negative_scores")
# Columns of lists, in which a text that looks like one must be one.
_LISTS = {"positives", "negatives", "pos", "neg", "hard_negatives", "answers"}


@dataclass(frozen=True, kw_only=True)
class RankedTexts:
    """A query and its documents, with those first that answer it.

    Attributes:
        relevant: How many documents, from the first on, answer the query.
        scores: A teacher's score of each document; None without a teacher.
        grades: How relevant each document is, where rows have labels other than 0 and 1.
        source: The number of the data set, from 0.
    """

    query: str
    documents: tuple[str, ...]
    relevant: int = 1
    scores: tuple[float, ...] | None = None
    grades: tuple[float, ...] | None = None
    source: int = 0

    @property
    def wanted(self) -> tuple[float, ...]:
        """What listwise losses learn: a teacher's scores, grades, or 1 for each answer."""
        others = len(self.documents) - self.relevant
        return self.scores or self.grades or (1.0,) * self.relevant + (0.0,) * others

    def first(self, num_documents: int) -> "RankedTexts":
        """Return the example with no more than its first documents."""
        scores, grades = (each and each[:num_documents] for each in (self.scores, self.grades))
        documents = self.documents[:num_documents]
        return replace(self, documents=documents, scores=scores, grades=grades)


@dataclass(frozen=True, kw_only=True)
class RetrievalData:
    """Examples and their source.

    Attributes:
        known: For each query, all documents that are known to answer it.
        notes: What you should know about the data, one line each.
    """

    source: str
    examples: Sequence[RankedTexts]
    known: dict[str, set[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def only(self, queries: Collection[str]) -> "RetrievalData":
        """Return the examples of some queries."""
        return replace(
            self,
            examples=[each for each in self.examples if each.query in queries],
            known={query: answers for query, answers in self.known.items() if query in queries},
        )

    def joined(self, more: "Sequence[RetrievalData]") -> "RetrievalData":
        """Return the examples of this data set and of more, which are numbered in their order."""
        if not more:
            return self
        known = {query: set(answers) for query, answers in self.known.items()}
        for each in more:
            for query, answers in each.known.items():
                known.setdefault(query, set()).update(answers)
        return RetrievalData(
            source=" and ".join([self.source, *(each.source for each in more)]),
            examples=[
                replace(example, source=number)
                for number, data in enumerate([self, *more])
                for example in data.examples
            ],
            known=known,
            notes=[note for data in [self, *more] for note in data.notes],
        )


def read_retrieval_data(
    source: Any, split: str = "train", settings: FileSettings | None = None
) -> RetrievalData:
    """Read a file, a dataset, a Python object, or a folder of judged texts.

    Args:
        source: The path, the name of the dataset, or the object.
        split: The split of a folder's judgements.
        settings: How to read files.

    Raises:
        DocumentError: The source cannot be read, or a row cannot be used.
    """
    if isinstance(source, str | Path) and is_judged_folder(Path(source)):
        judged = read_judged_texts(source, split)
        examples, notes, name = _of_judged(judged, str(source)), judged.notes, str(source)
    else:
        table = read_table(source, settings)
        examples, notes, name = examples_of_table(table), _told(table), table.source
    known: dict[str, set[str]] = {}
    for each in examples:
        known.setdefault(each.query, set()).update(each.documents[: each.relevant])
    return RetrievalData(
        source=name, examples=examples, known=known, notes=[*notes, *_doubtful(examples, name)]
    )


def _told(table: Table) -> list[str]:
    """Note what was read, and which columns retrieval does not use."""
    table = _named(table)
    roles = [POSITIVES, SCORES, POSITIVE_SCORES, NEGATIVE_SCORES]
    if table.first_of(POSITIVES) is None:
        roles = [DOCUMENTS, LABELS]
    used = {table.first_of(names) for names in (QUERIES, *roles)}
    others = [name for name in table.columns if name not in used and not _is_negative(name)]
    return [str(table) + (f"; not used: {', '.join(others)}" if others else "")]


def _doubtful(examples: Sequence[RankedTexts], source: str) -> list[str]:
    """Note texts that are empty, and negatives that are answers."""
    empty = sum(not text.strip() for each in examples for text in (each.query, *each.documents))
    both = sum(
        not set(each.documents[: each.relevant]).isdisjoint(each.documents[each.relevant :])
        for each in examples
    )
    notes = [f"{source}: empty texts: {empty:,}"] if empty else []
    if both:
        notes.append(f"{source}: queries with a negative that is also a positive: {both:,}")
    return notes


def read_corpus(
    source: Path | str, data: RetrievalData, split: str, *, more: str | None = None
) -> list[str]:
    """Return all documents to search, each once: those of the rows or the folder, and more.

    Args:
        source: The source of the examples.
        data: The rows of queries with their documents, as `read_retrieval_data` gives them.
        split: The split of a folder's judgements.
        more: A table with a column of further texts.

    Raises:
        DocumentError: A table cannot be read.
    """
    texts = dict.fromkeys(text for each in data.examples for text in each.documents)
    if is_judged_folder(Path(source)):
        texts.update(dict.fromkeys(read_judged_texts(source, split).documents.values()))
    if more is not None:
        table = read_table(more)
        column = table.find(("text", *DOCUMENTS), asked=None, option=None)
        texts.update(dict.fromkeys(table.texts(column)))
    return list(texts)


def one_answer_each(examples: Sequence[RankedTexts]) -> list[RankedTexts]:
    """Divide examples with several answers into examples with one each and the same negatives."""
    found = []
    for each in examples:
        answers, others = each.documents[: each.relevant], each.documents[each.relevant :]
        if each.relevant <= 1:
            found.append(each)
            continue
        for place, answer in enumerate(answers):
            scores, grades = (
                values and (values[place], *values[each.relevant :])
                for values in (each.scores, each.grades)
            )
            documents = (answer, *others)
            found.append(
                replace(each, documents=documents, relevant=1, scores=scores, grades=grades)
            )
    return found


def as_judged_texts(data: RetrievalData, name: str) -> JudgedTexts:
    """Return the queries of examples, with all their documents to search."""
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
        notes=data.notes,
    )


def _of_judged(judged: JudgedTexts, source: str) -> list[RankedTexts]:
    """Make an example of each document that answers a query; those judged 0 are negatives."""
    examples = []
    for query, scores in judged.judgements.items():
        judgements = {name: score for name, score in scores.items() if name in judged.documents}
        others = tuple(judged.documents[name] for name, score in judgements.items() if score <= 0)
        for name, score in sorted(judgements.items(), key=lambda each: -each[1]):
            if score > 0:
                documents = (judged.documents[name], *others)
                examples.append(RankedTexts(query=judged.queries[query], documents=documents))
    if not examples:
        raise DocumentError(
            f"{source}: no judgement of an existing document is above 0; there is nothing to learn"
        )
    return examples


def _named(table: Table) -> Table:
    """Name the columns of a table without a header: a query, a positive, and negatives."""
    numbers = tuple(str(place) for place in range(1, len(table.columns) + 1))
    if table.has_header or table.columns != numbers or len(numbers) < 2:
        return table
    negatives = [f"negative_{place}" for place in range(1, len(numbers) - 1)]
    names = dict(zip(numbers, ("query", "positive", *negatives), strict=True))
    if len(numbers) == 3 and all(number(row["3"]) is not None for row in table.rows):
        names |= {"2": "document", "3": "label"}
    rows = [{names[key]: value for key, value in row.items()} for row in table.rows]
    return replace(table, columns=tuple(names.values()), rows=rows)


def examples_of_table(table: Table) -> list[RankedTexts]:
    """Make an example of each row, or of all rows of a query if rows have labels.

    Raises:
        DocumentError: A column is missing, or a row cannot be used.
    """
    table = _named(table)
    query = table.find(QUERIES, asked=None, option=None)
    positive = table.first_of(POSITIVES)
    if positive in ("answer", "answers") and (context := table.first_of(("context",))):
        raise DocumentError(
            f"{table.source}: has both {context!r} and {positive!r}; rename the column of the "
            "texts that are to be found to 'positive', or train with `modernbert finetune answer`"
        )
    if positive is None:
        return _of_pairs(table, query)
    negatives = [name for name in table.columns if _is_negative(name)]
    scores = [table.first_of(names) for names in (SCORES, POSITIVE_SCORES, NEGATIVE_SCORES)]
    given = [name for name in (scores[:1] if scores[0] else scores[1:]) if name is not None]
    return [
        _example(table, index, query, positive, negatives, given) for index in range(len(table))
    ]


def _of_pairs(table: Table, query: str) -> list[RankedTexts]:
    """Join rows of a query, a document and a label by query, with the answers first."""
    document = table.find((*POSITIVES, *DOCUMENTS), asked=None, option=None)
    label = table.first_of(LABELS)
    queries, documents = table.texts(query), table.texts(document)
    if label is None:
        rows = zip(queries, documents, strict=True)
        return [RankedTexts(query=text, documents=(answer,)) for text, answer in rows]
    groups: dict[str, list[tuple[float, str]]] = {}
    for index, (text, answer) in enumerate(zip(queries, documents, strict=True)):
        value = table.rows[index].get(label)
        said = flag(value)  # also true and false
        score = _number(value, table.where(index), label) if said is None else float(said)
        groups.setdefault(text, []).append((score, answer))
    return [_graded(text, group) for text, group in groups.items()]


def _graded(query: str, group: Sequence[tuple[float, str]]) -> RankedTexts:
    """Make an example of a query's documents and their labels, the best first."""
    ordered = sorted(group, key=lambda each: -each[0])
    grades = tuple(grade for grade, _ in ordered)
    return RankedTexts(
        query=query,
        documents=tuple(text for _, text in ordered),
        relevant=sum(grade > 0 for grade in grades),
        grades=None if set(grades) <= {0, 1} else grades,
    )


def _example(
    table: Table,
    index: int,
    query: str,
    positive: str,
    negatives: Sequence[str],
    scores: Sequence[str],
) -> RankedTexts:
    """Make an example of a row; `scores` are the columns with the scores of its documents."""
    row, where = table.rows[index], table.where(index)
    answers = _texts(table, row.get(positive), positive, index)
    others = [text for name in negatives for text in _texts(table, row.get(name), name, index)]
    if not answers:
        raise DocumentError(f"{where}: column {positive!r}: got nothing, expected a text")
    values = [value for name in scores for value in _numbers(row.get(name), where, name)]
    if values and len(values) != len(answers) + len(others):
        raise DocumentError(
            f"{where}: {len(values)} scores in {' and '.join(scores)} for "
            f"{len(answers) + len(others)} documents; give one for each positive and one for each "
            "negative"
        )
    return RankedTexts(
        query=table.text(row.get(query), query, index),
        documents=(*answers, *others),
        relevant=len(answers),
        scores=tuple(values) or None,
    )


def _texts(table: Table, value: Any, column: str, index: int) -> list[str]:
    """Return one text or a list of them, even if printed in a cell; an empty list if none."""
    if is_missing(value):
        return []
    if not isinstance(value, str) or looks_like_list(value):
        value = _listed(value, f"{table.where(index)}: column {column!r}", column)
    values = value if isinstance(value, list) else [value]
    return [table.text(_passage(each), column, index) for each in values]


def _listed(value: Any, where: str, column: str) -> Any:
    """The list of a cell; what only looks like one is a text where the column is of one text.

    Raises:
        DocumentError: A column of lists has something that looks like one and cannot be read.
    """
    try:
        found = as_list(value)
    except DocumentError as error:
        if column.lower() in _LISTS:
            raise DocumentError(f"{where}: {error}") from None
        return value
    if found is None or (
        isinstance(value, str) and not all(isinstance(each, str | dict) for each in found)
    ):
        return value
    return found


def _passage(value: Any) -> Any:
    """Return the text of a passage in Tevatron's format after its title; other texts unchanged."""
    if not isinstance(value, dict):
        return value
    title, text = value.get("title"), value.get("text")
    return f"{title} {text}" if isinstance(title, str) and title.strip() else text


def _is_negative(name: str) -> bool:
    """Return whether a column is called `negative`, `negatives` or `neg`, perhaps with a number."""
    return name.lower().rstrip("0123456789_") in NEGATIVES


def _numbers(value: Any, where: str, column: str) -> list[float]:
    if is_missing(value):
        return []
    values = as_list(value)
    return [_number(each, where, column) for each in ([value] if values is None else values)]


def _number(value: Any, where: str, column: str) -> float:
    found = number(value)
    if found is None or not math.isfinite(found):
        raise DocumentError(f"{where}: column {column!r}: got {value!r}, expected a number")
    return found
