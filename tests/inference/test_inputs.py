"""Texts and pairs to token ids, cut where they are too long."""

from collections.abc import Iterable

import numpy as np
import pyarrow
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modernbert.errors import InputError, TruncationWarning
from modernbert.inference.batching import Progress
from modernbert.inference.inputs import (
    TextEncoder,
    Watched,
    each_item,
    num_characters,
    require_list,
)
from modernbert.tokenizer.tokenizer import Tokenizer

pandas = pytest.importorskip("pandas")

TEXTS = st.lists(st.sampled_from(["the", " square", " of 7", "9", " not less."]), max_size=12)


@example(parts=[("the" * 10 + " of 7 of 7", "the" * 10 + " of 7")])  # both are longer than 16
@given(parts=st.lists(st.tuples(TEXTS.map("".join), TEXTS.map("".join)), min_size=1, max_size=4))
def test_as_the_tokenizer_encodes(tokenizer: Tokenizer, parts: list[tuple[str, str]]) -> None:
    encode = TextEncoder(tokenizer, 16)
    mixed = [text for first, second in parts for text in (first, (first, second))]
    for text, found in zip(mixed, encode(mixed), strict=True):
        whole = tokenizer.encode(*([text] if isinstance(text, str) else text))
        cut = tokenizer.encode(*([text] if isinstance(text, str) else text), max_seqlen=16)
        assert found.token_ids == cut
        assert found.is_truncated == (len(whole) > 16)


def test_texts_that_cannot_be(tokenizer: Tokenizer) -> None:
    encode = TextEncoder(tokenizer, 16)
    for wrong, named in ((7, "int"), (("a", "b", "c"), "tuple of 3"), (("a", 1), "tuple of 2")):
        with pytest.raises(InputError, match=rf"^texts: got {named}, expected a str or a pair"):
            encode([wrong])  # type: ignore[list-item]
    with pytest.raises(InputError, match="lone surrogate"):
        encode(["\ud800"])
    with pytest.raises(InputError, match=r"^max_seqlen: got 3, expected at least 4"):
        TextEncoder(tokenizer, 3)
    single = TextEncoder(tokenizer, 16, takes_pairs=False)
    with pytest.raises(InputError, match=r"^texts: got tuple of 2 at 1, expected a str"):
        single(["a", ("a", "b")])


def test_sizes_and_prompts(tokenizer: Tokenizer) -> None:
    assert num_characters("abc") == 3 and num_characters(("abc", "de")) == 5
    plain, prompted = TextEncoder(tokenizer, 16), TextEncoder(tokenizer, 16, prompt="p: ")
    assert prompted(["a", ("a", "b")]) == plain(["p: a", ("p: a", "b")])


def test_truncation_is_said_once() -> None:
    watched = Watched()
    watched.warn_of_truncated(512)
    watched(Progress(texts=1200, tokens=9, truncated=1100))
    with pytest.warns(TruncationWarning, match=r"^1,100 of 1,200 texts are longer than 512 tokens"):
        watched.warn_of_truncated(512)


def test_reports_are_passed_on() -> None:
    told: list[Progress] = []
    Watched(told.append)(Progress(texts=1))
    assert told == [Progress(texts=1)]


FRAMES = {
    "a dictionary": {"text": ["a", "b"], "label": [0, 1]},
    "a frame": pandas.DataFrame({"text": ["a", "b"], "label": [0, 1]}),
}


@pytest.mark.parametrize("case", FRAMES)
def test_a_table_is_not_taken_for_its_column_names(case: str) -> None:
    with pytest.raises(InputError, match=r"'text', 'label'; pass one column of it, such as texts"):
        require_list(FRAMES[case], "texts")


@pytest.mark.parametrize(
    "texts",
    [
        ["a", "b"],
        pandas.Series(["a", "b"]),
        np.array(["a", "b"]),
        pyarrow.array(["a", "b"]),
        pyarrow.chunked_array([["a"], ["b"]]),
        (text for text in "ab"),
    ],
)
def test_columns_of_other_libraries_are_texts(texts: Iterable[str]) -> None:
    require_list(texts, "texts")
    assert list(each_item(texts)) == ["a", "b"]


@pytest.mark.parametrize("nothing", [None, float("nan"), pandas.NA, ("a", None)])
def test_a_missing_text_is_named_with_its_place(nothing: object) -> None:
    with pytest.raises(InputError, match=r"^texts\[1\](\[1\])?: got .*, expected a text"):
        list(each_item(["a", nothing]))
