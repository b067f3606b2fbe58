"""Cells as numbers, flags and lists, however they were written down; nothing is guessed."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.data.rows.cells import (
    are_flags,
    as_list,
    as_object,
    flag,
    is_missing,
    number,
    whole_number,
)
from modernbert.errors import DocumentError

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = WORDS | st.integers(-99, 99) | st.booleans() | st.none()


@given(st.lists(VALUES, max_size=6))
def test_lists_as_python_prints_them(values: list[Any]) -> None:
    assert as_list(str(values)) == values


@given(st.frozensets(WORDS, max_size=4))
def test_sets_as_python_has_and_prints_them(values: frozenset[str]) -> None:
    assert as_list(values) == as_list(str(set(values))) == sorted(values)


@given(st.lists(st.text(st.sampled_from("ab'\" ,[]\\"), max_size=5), min_size=1, max_size=6))
def test_lists_of_texts_as_numpy_prints_them(values: list[str]) -> None:
    assert as_list(str(np.array(values, dtype=object))) == values
    assert as_list(repr(np.array(values, dtype=object))) == values


@given(st.lists(st.sampled_from([0, 1]), min_size=1, max_size=6))
def test_flags_as_numpy_prints_them(values: list[int]) -> None:
    assert as_list(str(np.array(values))) == values
    assert as_list(str(np.array(values, dtype=float))) == values


@pytest.mark.parametrize(
    "text",
    [
        "[a b]",
        "['a' 'b', 'c']",
        "[1 2 ... 9]",
        "['a'",
        "[1, 2, ...]",
        "['a'] 'b'",
        "[1_0]",
        "[x()]",
    ],
)
def test_what_only_looks_like_a_list_is_refused(text: str) -> None:
    with pytest.raises(DocumentError, match="looks like a list but cannot be read as one"):
        as_list(text)


@pytest.mark.parametrize("value", ["a b", "(a)", "{a}", "{'a': 1}", "", 3, None, {"a": 1}])
def test_what_is_no_list(value: object) -> None:
    assert as_list(value) is None


def test_lists_of_other_libraries() -> None:
    assert as_list(np.array(["a", "b"])) == ["a", "b"]
    assert as_list(("a",)) == ["a"]
    assert as_list("[{'start': 0, 'end': 1}]") == [{"start": 0, "end": 1}]
    printed = "{'text': array(['x'], dtype=object), 'answer_start': array([5])}"
    assert as_object(printed) == {"text": ["x"], "answer_start": [5]}


NUMBERS = {
    "1": 1.0,
    " -1.50 ": -1.5,
    ".5": 0.5,
    "1e3": 1000.0,
    "1_0": None,
    "0,5": None,
    "nan": None,
    "inf": None,
    "0x10": None,
    "\N{ARABIC-INDIC DIGIT ONE}": None,
    "": None,
}


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers(text: str) -> None:
    assert number(text) == NUMBERS[text]


def test_numbers_of_other_types() -> None:
    assert number("-0,5", decimal_comma=True) == -0.5
    assert number("1.234,5", decimal_comma=True) is None
    assert number(np.float32(0.5)) == 0.5
    assert number(True) is None
    assert math.isnan(number(float("nan")) or 0)


@pytest.mark.parametrize("value", [13, 13.0, "13", "13.0", np.int64(13), np.float64(13)])
def test_whole_numbers(value: object) -> None:
    assert whole_number(value) == 13


@pytest.mark.parametrize("value", [1.5, "x", None, True, float("nan"), float("inf")])
def test_what_is_no_whole_number(value: object) -> None:
    assert whole_number(value) is None


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", True, "TRUE", "yes", np.int64(1), np.True_])
def test_flags_that_are_set(value: object) -> None:
    assert flag(value) is True


@pytest.mark.parametrize("value", [2, 0.5, None, "", "maybe", float("nan")])
def test_what_is_no_flag(value: object) -> None:
    assert flag(value) is None


def test_vectors_of_flags() -> None:
    assert are_flags([[1, 0, 1], [0, 0.0, True]])
    assert not are_flags([[1, 0], [1]])
    assert not are_flags([[1, 2]])
    assert not are_flags([[1], [0]])  # of one label each


@pytest.mark.parametrize("value", [None, "", float("nan"), np.float64("nan")])
def test_what_is_missing(value: object) -> None:
    assert is_missing(value)
