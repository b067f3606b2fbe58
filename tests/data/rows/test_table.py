"""Tables: columns by name, rows that cannot be used, and rows that are held out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.data.rows.table import Table, held_out, share_of
from modernbert.errors import DocumentError, SettingsError

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


def test_shares() -> None:
    texts = ("10%", "2.5 %", "dev.csv", None)
    assert [share_of(text) for text in texts] == [0.1, 0.025, None, None]
    for text in ("0%", "51%"):
        with pytest.raises(SettingsError, match="expected a share from above 0% to 50%"):
            share_of(text)
    for text in ("10", "0.1", ".1"):
        with pytest.raises(SettingsError, match="write a share with %, such as 10%"):
            share_of(text)


def test_each_label_gives_its_share() -> None:
    labels = [["a"]] * 80 + [["b"]] * 20
    chosen = held_out(range(100), 0.1, labels=labels, stratify=True)
    assert [sum(chosen[:80]), sum(chosen[80:])] == [8, 2]
    assert chosen == held_out(range(100), 0.1, labels=labels, stratify=True)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sets(st.integers(0, 5), max_size=3)), max_size=60),
    st.floats(0.01, 0.5),
)
def test_groups_stay_whole_and_labels_stay_known(
    rows: list[tuple[int, set[int]]], share: float
) -> None:
    groups, labels = [group for group, _ in rows], [each for _, each in rows]
    chosen = held_out(groups, share, labels=labels)
    sides: list[set[int]] = [set(), set()]
    known: set[int] = set()
    for group, each, is_out in zip(groups, labels, chosen, strict=True):
        sides[is_out].add(group)
        known |= set() if is_out else each
    assert sides[0].isdisjoint(sides[1])
    assert known == {label for each in labels for label in each}
    assert len(sides[1]) <= round(share * len(set(groups)))
