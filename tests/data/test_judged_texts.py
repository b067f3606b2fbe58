"""Folders of queries, documents and judgements: read in all their forms, and refused clearly."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from modernbert.data.judged_texts import is_judged_folder, read_judged_texts
from modernbert.errors import DocumentError

CORPUS = [{"_id": "d1", "title": "A", "text": "a"}, {"_id": "d2", "title": "", "text": "b"}]
QUERIES = [{"_id": "q1", "text": "x"}, {"_id": "q2", "text": "y"}]


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def folder(
    path: Path, qrels: str, *, corpus: str | None = None, queries: str | None = None
) -> Path:
    (path / "qrels").mkdir(parents=True)
    (path / "corpus.jsonl").write_text(lines(*CORPUS) if corpus is None else corpus)
    (path / "queries.jsonl").write_text(lines(*QUERIES) if queries is None else queries)
    (path / "qrels" / "test.tsv").write_text(qrels)
    return path


def tsv(*rows: tuple[object, ...]) -> str:
    return "\n".join(
        "\t".join(map(str, row)) for row in [("query-id", "corpus-id", "score"), *rows]
    )


def test_all_that_a_folder_holds(tmp_path: Path) -> None:
    path = folder(tmp_path / "set", tsv(("q1", "d1", 2), ("q1", "d2", 0)))
    assert is_judged_folder(path) and not is_judged_folder(tmp_path)
    read = read_judged_texts(path)
    assert read.name == "set"
    assert read.documents == {"d1": "A a", "d2": "b"}
    assert read.queries == {"q1": "x"}  # the other has no judgement
    assert read.judgements == {"q1": {"d1": 2, "d2": 0}}


def test_packed_files_and_judgements_as_json(tmp_path: Path) -> None:
    for name, content in (
        ("corpus.jsonl.gz", lines(*CORPUS)),
        ("queries.jsonl.gz", lines(*QUERIES)),
        ("qrels.jsonl.gz", lines({"query-id": "q2", "corpus-id": "d2", "score": 1})),
    ):
        (tmp_path / name).write_bytes(gzip.compress(content.encode()))
    assert read_judged_texts(tmp_path).judgements == {"q2": {"d2": 1}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qrels": tsv(("q1", "d9", 1))}, "judges no query and document that exist"),
        ({"qrels": tsv(("q9", "d1", 1))}, "judges no query and document that exist"),
        ({"qrels": tsv(("q1", "d1", "1_0"))}, "the score is '1_0'"),
        (
            {"qrels": tsv(("q1", "d1", 1), ("q1", "d1", 0))},
            "judges document 'd1' for query",
        ),
        ({"qrels": tsv(("q1", "d1", "nan"))}, "the score is 'nan'; expected a whole number"),
        ({"qrels": tsv(("q1", "d1", "much"))}, "the score is 'much'"),
        ({"qrels": "a\tb\nq1\td1"}, "none of the columns query-id"),
        (
            {"qrels": tsv(("q1", "d1", 1)), "corpus": lines(CORPUS[0], CORPUS[0])},
            "id 'd1' of row 1",
        ),
        ({"qrels": tsv(("q1", "d1", 1)), "queries": lines(*QUERIES, QUERIES[0])}, "of row 1"),
        ({"qrels": tsv(("q1", "d1", 1)), "corpus": lines({"_id": "d1", "text": 3})}, "got 3"),
    ],
)
def test_what_cannot_be_judged(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read_judged_texts(folder(tmp_path / "set", **changes))


def test_what_does_not_fit_together_is_counted_and_said(tmp_path: Path) -> None:
    """Published folders judge documents that were taken out; what they judge cannot be found."""
    rows = [("q1", "d1", 1), ("q1", "d9", 1), ("q9", "d1", 1), ("q1", "d1", 1), ("q8", "d8", 0)]
    path = folder(tmp_path / "set", tsv(*rows))
    read = read_judged_texts(path)
    assert read.judgements == {"q1": {"d1": 1, "d9": 1}}
    assert read.queries == {"q1": "x"}
    assert read.notes == [
        f"{path}/qrels/test.tsv: 2 of 5 judgements are of queries that are not there",
        f"{path}/qrels/test.tsv: 2 of 5 judgements are of documents that are not there",
        f"{path}: 1 of 2 queries have no judgement",
    ]


@pytest.mark.parametrize("row", ["q1\td2\t1", "q1\t0\td2\t1", "q1 0 d2 1"])
def test_judgements_without_a_header(tmp_path: Path, row: str) -> None:
    read = read_judged_texts(folder(tmp_path / "set", f"{row}\nq2{row[2:]}\n"))
    assert read.judgements == {"q1": {"d2": 1}, "q2": {"d2": 1}}


def test_missing_files_are_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "set", tsv(("q1", "d1", 1)))
    with pytest.raises(DocumentError, match=r"no qrels/dev\.tsv .*its splits are test"):
        read_judged_texts(path, "dev")
    (path / "queries.jsonl").unlink()
    with pytest.raises(DocumentError, match=r"no queries\.jsonl"):
        read_judged_texts(path)


def test_real_judgements(shared_data: Path) -> None:
    read = read_judged_texts(shared_data / "nfcorpus" / "test")
    assert len(read.queries) > 300
    assert len(read.documents) > 3000


def test_a_column_that_is_missing_is_to_be_renamed(tmp_path: Path) -> None:
    path = folder(tmp_path / "set", "", corpus=lines({"_id": "d1", "contents": "a"}))
    with pytest.raises(DocumentError, match="none of the columns text; rename the one"):
        read_judged_texts(path)


def test_judgements_without_a_header_whose_cells_are_equal(tmp_path: Path) -> None:
    texts = lines({"_id": "1", "text": "a"}, {"_id": "2", "text": "b"})
    qrels = "1\t1\t1\n2\t2\t1\n"
    read = read_judged_texts(folder(tmp_path / "set", qrels, corpus=texts, queries=texts))
    assert read.judgements == {"1": {"1": 1}, "2": {"2": 1}}
