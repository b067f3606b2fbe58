"""Tables: columns by name, and rows that cannot be used."""

import pytest

from modernbert.data.rows.table import Table
from modernbert.errors import DocumentError

TABLE = Table(
    source="a.csv",
    columns=("id", "Sentence", "label"),
    rows=[
        {"id": 1, "Sentence": "one", "label": "x"},
        {"id": 2, "Sentence": "", "label": None},
        {"id": 1, "Sentence": 3},
    ],
)


def test_columns_are_found_by_name() -> None:
    assert TABLE.find(["text", "sentence"], asked=None, option="--text") == "Sentence"
    assert TABLE.find(["text"], asked="label", option="--text") == "label"
    assert TABLE.first_of(["text"]) is None
    assert len(TABLE) == 3
    assert TABLE.values("label") == ["x", None, None]


def test_a_column_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(DocumentError, match=r"^a.csv: no column 'lable'; did you mean 'label'\?"):
        TABLE.find(["label"], asked="lable", option="--label")
    with pytest.raises(
        DocumentError,
        match=r"has none of the columns score, target; say with --label .* 'Sent",
    ):
        TABLE.find(["score", "target"], asked=None, option="--label")


def test_texts_are_texts() -> None:
    table = Table(source="a", columns=("text",), rows=[{"text": "é"}, {"text": ""}])
    assert table.texts("text") == ["é", ""]
    with pytest.raises(DocumentError, match=r"^a.csv, row 3: column 'Sentence': got 3, expected"):
        TABLE.texts("Sentence")
    with pytest.raises(DocumentError, match="got nothing, expected a text"):
        TABLE.texts("label")
    half = Table(source="a", columns=("text",), rows=[{"text": "\ud800"}])
    with pytest.raises(DocumentError, match=r"^a, row 1: .* got a lone surrogate"):
        half.texts("text")


def test_ids_differ() -> None:
    with pytest.raises(DocumentError, match=r"^a.csv, row 3: has the id 1 of row 1; ids in column"):
        TABLE.require_distinct("id")
    TABLE.require_distinct("Sentence")
