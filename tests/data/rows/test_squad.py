"""SQuAD files with parts missing: rows without answers, or an error that names the place."""

import json
from pathlib import Path
from typing import Any

import pytest

from modernbert.data.rows.tables import read_table
from modernbert.errors import DocumentError


def write(path: Path, *paragraphs: Any) -> Path:
    path.write_text(json.dumps({"version": "2", "data": [{"paragraphs": list(paragraphs)}]}))
    return path


def test_questions_without_answers_are_rows_without_them(tmp_path: Path) -> None:
    paragraph = {"context": "c", "qas": [{"id": "1", "question": "who?"}]}
    table = read_table(write(tmp_path / "a.json", paragraph))
    assert list(table.rows) == [{"id": "1", "question": "who?", "context": "c"}]


def test_a_paragraph_without_questions_is_no_row(tmp_path: Path) -> None:
    paragraph = {"context": "c", "qas": [{"question": "who?"}]}
    table = read_table(write(tmp_path / "a.json", {"context": "d", "qas": []}, paragraph))
    assert table.values("context") == ["c"]


@pytest.mark.parametrize(
    ("paragraph", "message"),
    [
        ({"qas": [{"question": "who?"}]}, "article 1, paragraph 1: got nothing for 'context'"),
        ({"context": "c"}, "article 1, paragraph 1: got nothing for 'qas', expected a list"),
        ({"context": "c", "qas": [{}]}, "paragraph 1, question 1: got nothing for 'question'"),
        ("text", "article 1, paragraph 1: got nothing for 'qas'"),
        ({"context": "c", "qas": []}, "without any question"),
    ],
)
def test_missing_parts_are_named(tmp_path: Path, paragraph: Any, message: str) -> None:
    with pytest.raises(DocumentError, match=rf"a\.json.*{message}"):
        read_table(write(tmp_path / "a.json", paragraph))


def test_an_article_without_paragraphs_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"paragraphs": []}, {"title": "x"}]}))
    with pytest.raises(DocumentError, match="article 2: got nothing for 'paragraphs'"):
        read_table(tmp_path / "a.json")


PARAGRAPH = {"context": "c", "qas": [{"id": "1", "question": "who?"}]}


@pytest.mark.parametrize(
    "content",
    [
        {"data": [{"paragraphs": [PARAGRAPH]}]},
        [{"title": "x", "paragraphs": [PARAGRAPH]}],
        {"title": "x", "paragraphs": [PARAGRAPH]},
        [PARAGRAPH],
    ],
)
def test_articles_and_paragraphs_by_themselves(tmp_path: Path, content: Any) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    rows = read_table(tmp_path / "a.json").rows
    assert list(rows) == [{"id": "1", "question": "who?", "context": "c"}]


@pytest.mark.parametrize("row", [{"text": "x", "paragraphs": ["y"]}, {"annotations": [1]}])
def test_other_objects_stay_as_they_are(tmp_path: Path, row: Any) -> None:
    (tmp_path / "a.json").write_text(json.dumps([row]))
    assert list(read_table(tmp_path / "a.json").rows) == [row]


@pytest.mark.parametrize("key", [None, "annotations"])
def test_pairs_of_a_text_and_its_entities(tmp_path: Path, key: str | None) -> None:
    pairs = [["Ada lives.", {"entities": [[0, 3, "PER"]]}]]
    (tmp_path / "a.json").write_text(json.dumps(pairs if key is None else {key: pairs}))
    rows = read_table(tmp_path / "a.json").rows
    assert list(rows) == [{"text": "Ada lives.", "entities": [[0, 3, "PER"]]}]
