"""Queries, documents and judgements in the format of the BEIR collection (arXiv 2104.08663).

    corpus.jsonl            _id, text, and perhaps title
    queries.jsonl           _id, text
    qrels/test.tsv          query-id, corpus-id, score; or qrels.jsonl or qrels.tsv without splits

Every file may be compressed as .gz, .xz or .zst. Judgements without a header are read in TREC's
format: query, document and score, perhaps with an unused column after the query.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modernbert.data.rows.cells import number, whole_number
from modernbert.data.rows.formats import READERS
from modernbert.data.rows.table import Table
from modernbert.data.rows.tables import read_table
from modernbert.data.settings import FileSettings
from modernbert.errors import DocumentError
from modernbert.reading import user_path

_PACKED = ("", ".gz", ".xz", ".zst")
_IDS = ("_id", "id")


@dataclass(frozen=True, kw_only=True)
class JudgedTexts:
    """Queries with judgements, and the documents to search.

    Attributes:
        queries: The text of each query that has judgements, by id.
        documents: The text of each document, by id.
        judgements: For each query, the relevance of documents; 0 is not relevant. Judgements of
            missing documents are kept, because they count as not found.
        notes: Inconsistencies, one line each.
    """

    name: str
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    judgements: Mapping[str, Mapping[str, int]]
    notes: Sequence[str] = ()


def is_judged_folder(path: Path) -> bool:
    """Return whether a folder holds a corpus and queries."""
    return path.is_dir() and all(_file(path, name) is not None for name in ("corpus", "queries"))


def read_judged_texts(folder: Path | str, split: str = "test") -> JudgedTexts:
    """Read a folder of queries, documents and judgements.

    Args:
        folder: A folder with corpus.jsonl, queries.jsonl and qrels/.
        split: The split of the judgements, if there are several.

    Raises:
        DocumentError: A file is missing or cannot be read, an id occurs twice, a score is not a
            number, judgements contradict each other, or no judgement is about an existing query and
            document.
    """
    folder = user_path(folder)
    documents = _texts(_table(folder, "corpus"))
    queries = _texts(_table(folder, "queries"))
    table = _qrels(folder, split)
    qrels, notes = _judgements(table, queries, documents)
    if not any(name in documents for judged in qrels.values() for name in judged):
        raise DocumentError(
            f"{table.source}: judges no query and document that exist; does it belong to {folder}?"
        )
    judged = {name: text for name, text in queries.items() if name in qrels}
    if without := len(queries) - len(judged):
        notes.append(f"{folder}: {without:,} of {len(queries):,} queries have no judgement")
    return JudgedTexts(
        name=folder.name, queries=judged, documents=documents, judgements=qrels, notes=notes
    )


def _file(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}{suffix}{packed}" for suffix in READERS for packed in _PACKED)
    return next((path for path in paths if path.is_file()), None)


def _table(folder: Path, name: str) -> Table:
    path = _file(folder, name)
    if path is None:
        raise DocumentError(
            f"{folder}: no {name}.jsonl; expected corpus.jsonl, queries.jsonl and qrels"
        )
    return read_table(path)


def _qrels(folder: Path, split: str) -> Table:
    path = _file(folder / "qrels", split) or _file(folder, "qrels")
    if path is None:
        there = sorted(each.stem for each in (folder / "qrels").glob("*"))
        known = f"its splits are {', '.join(there)}" if there else "it has no qrels"
        raise DocumentError(f"{folder}: no qrels/{split}.tsv and no qrels.jsonl; {known}")
    if path.suffix == ".jsonl":
        return read_table(path)
    first = _columns_apart(read_table(path, FileSettings(header=False)))
    if len(first.columns) in (3, 4) and number(first.rows[0][first.columns[-1]]) is not None:
        return _named(first)
    return read_table(path)


def _columns_apart(table: Table) -> Table:
    """Split judgements whose columns are separated only by spaces, as TREC's may be."""
    if len(table.columns) > 1 or table.columns != ("1",):
        return table
    rows = [
        {str(number): cell for number, cell in enumerate(row["1"].split(), start=1)}
        for row in table.rows
    ]
    return replace(table, columns=tuple(rows[0]), rows=rows)


def _named(table: Table) -> Table:
    """Name the columns of judgements without a header."""
    names = {"1": "query-id", table.columns[-2]: "corpus-id", table.columns[-1]: "score"}
    rows = [{names.get(key, key): value for key, value in row.items()} for row in table.rows]
    return replace(table, columns=tuple(names.get(key, key) for key in table.columns), rows=rows)


def _texts(table: Table) -> dict[str, str]:
    """Return the text of each id, after its title if it has one."""
    ids = table.find(_IDS, asked=None, option=None)
    table.require_distinct(ids)
    texts = table.texts(table.find(("text",), asked=None, option=None))
    titles = table.values("title")
    return {
        str(name): f"{title} {text}".strip() if isinstance(title, str) else text
        for name, title, text in zip(table.values(ids), titles, texts, strict=True)
    }


def _judgements(
    table: Table, queries: Mapping[str, str], documents: Mapping[str, str]
) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Return the judgements of existing queries, and notes about the others."""
    columns = {
        name: table.find(usual, asked=None, option=None)
        for name, usual in (
            ("query-id", ("query-id", "query_id", "qid")),
            ("corpus-id", ("corpus-id", "corpus_id", "doc_id", "docid")),
            ("score", ("score", "relevance", "label")),
        )
    }
    found: dict[str, dict[str, int]] = {}
    absent: Counter[str] = Counter()
    for index, row in enumerate(table.rows):
        query, document = str(row.get(columns["query-id"])), str(row.get(columns["corpus-id"]))
        score = _score(row.get(columns["score"]), table.where(index))
        absent["queries"] += query not in queries
        absent["documents"] += document not in documents
        if query not in queries:
            continue
        if found.setdefault(query, {}).setdefault(document, score) != score:
            raise DocumentError(
                f"{table.where(index)}: judges document {document!r} for query {query!r} again "
                "and otherwise; remove one of the rows"
            )
    notes = [
        f"{table.source}: {count:,} of {len(table):,} judgements are of {kind} that are not there"
        for kind, count in absent.items()
        if count
    ]
    return found, notes


def _score(value: Any, where: str) -> int:
    found = whole_number(value)
    if found is None:
        raise DocumentError(f"{where}: the score is {value!r}; expected a whole number such as 1")
    return found
