"""Queries, documents and judgements, as the BEIR collection (arXiv 2104.08663) has them.

    corpus.jsonl            _id, text, and perhaps title
    queries.jsonl           _id, text
    qrels/test.tsv          query-id, corpus-id, score; or qrels.jsonl or qrels.tsv without splits

Every file may be packed as .gz, .xz or .zst.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modernbert.data.rows.table import Table
from modernbert.data.rows.tables import read_table
from modernbert.errors import DocumentError

_SUFFIXES = (".jsonl", ".tsv", ".csv", ".parquet")
_PACKED = ("", ".gz", ".xz", ".zst")
_IDS = ("_id", "id")


@dataclass(frozen=True, kw_only=True)
class JudgedTexts:
    """Queries with judgements, and the documents that are searched.

    queries, documents: the text of each id; only queries that have judgements.
    judgements: for each query, how relevant documents are; 0 is not at all.
    """

    name: str
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    judgements: Mapping[str, Mapping[str, int]]


def is_judged_folder(path: Path) -> bool:
    """Whether a folder holds a corpus and queries."""
    return path.is_dir() and all(_file(path, name) is not None for name in ("corpus", "queries"))


def read_judged_texts(folder: Path | str, split: str = "test") -> JudgedTexts:
    """Read a folder.

    split: of the judgements, where there are several.

    Raises:
        DocumentError: a file that is missing or cannot be read, an id that occurs twice, and
            judgements of what there is not, or with a score that is no number.
    """
    folder = Path(folder).expanduser()
    documents = _texts(_table(folder, "corpus"))
    queries = _texts(_table(folder, "queries"))
    qrels = _judgements(_qrels(folder, split), queries, documents)
    judged = {name: text for name, text in queries.items() if name in qrels}
    return JudgedTexts(name=folder.name, queries=judged, documents=documents, judgements=qrels)


def _file(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}{suffix}{packed}" for suffix in _SUFFIXES for packed in _PACKED)
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
    return read_table(path)


def _texts(table: Table) -> dict[str, str]:
    """The text of each id; a title goes before it."""
    ids = table.find(_IDS, asked=None, option="_id")
    table.require_distinct(ids)
    texts = table.texts(table.find(("text",), asked=None, option="text"))
    titles = table.values("title")
    return {
        str(name): f"{title} {text}".strip() if isinstance(title, str) else text
        for name, title, text in zip(table.values(ids), titles, texts, strict=True)
    }


def _judgements(
    table: Table, queries: Mapping[str, str], documents: Mapping[str, str]
) -> dict[str, dict[str, int]]:
    columns = {
        name: table.find(usual, asked=None, option=name)
        for name, usual in (
            ("query-id", ("query-id", "query_id", "qid")),
            ("corpus-id", ("corpus-id", "corpus_id", "doc_id", "docid")),
            ("score", ("score", "relevance", "label")),
        )
    }
    found: dict[str, dict[str, int]] = {}
    for index, row in enumerate(table.rows):
        query, document = str(row.get(columns["query-id"])), str(row.get(columns["corpus-id"]))
        for kind, name, known in (("query", query, queries), ("document", document, documents)):
            if name not in known:
                raise DocumentError(
                    f"{table.where(index)}: judges the {kind} {name!r}, which is not there; add "
                    "it or leave the row out"
                )
        judged = found.setdefault(query, {})
        if document in judged:
            raise DocumentError(
                f"{table.where(index)}: judges document {document!r} for query {query!r} again; "
                "leave one of the rows out"
            )
        judged[document] = _score(row.get(columns["score"]), table.where(index))
    return found


def _score(value: Any, where: str) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not number.is_integer():
        raise DocumentError(f"{where}: the score is {value!r}; expected a whole number such as 1")
    return int(number)
