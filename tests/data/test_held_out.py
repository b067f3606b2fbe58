"""Rows that are held out: the same ones each time, of each label alike, groups kept whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.data.rows.table import held_out, share_of
from modernbert.errors import SettingsError


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
