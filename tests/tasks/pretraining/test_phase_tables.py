"""What the phases of a recipe have in common, and what each has of its own."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.errors import SettingsError
from modernbert.tasks.pretraining.recipe_tables import merge, merged, parted

KEYS = st.sampled_from("abc")
VALUES = st.integers(0, 1) | st.lists(st.integers(0, 1), max_size=1)
TABLES = st.recursive(
    st.dictionaries(KEYS, VALUES, min_size=1),
    lambda inner: st.dictionaries(KEYS, VALUES | inner, min_size=1),
    max_leaves=6,
)


@given(st.lists(TABLES, min_size=1, max_size=3))
def test_parting_and_merging_give_the_same_tables(tables: list[dict[str, Any]]) -> None:
    tables = [{"name": str(number), **table} for number, table in enumerate(tables)]
    common, rests = parted(tables, ["name"])
    assert [merge(common, rest) for rest in rests] == tables
    assert all("name" in rest for rest in rests) and "name" not in common


def test_one_table_is_all_in_common() -> None:
    assert parted([{"name": "a", "t": {"x": 1}}], ["name"]) == ({"t": {"x": 1}}, [{"name": "a"}])


def test_lists_are_replaced_whole() -> None:
    assert merge({"sources": [1, 2]}, {"sources": [3]}) == {"sources": [3]}


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ("all", "recipe: phases: got 'all', expected"),
        ([3], "recipe: phases: got "),
        ([{"name": "a"}, {}], r"recipe: phases\[1\]: key 'name' is missing"),
    ],
)
def test_what_are_no_phases(phases: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=f"^{message}"):
        merged({}, phases, where="recipe")
