"""BM25: the scores of bm25s, in one part or in several, with documents that are gone."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.errors import InputError
from modernbert.inference.bm25 import Bm25, rank_by_words, words_of

bm25s = pytest.importorskip("bm25s", reason="needs the extra search")
pytest.importorskip("Stemmer", reason="needs the extra search")

TEXTS = st.lists(st.lists(st.sampled_from(["aa", "bb", "cc", "dd"]), max_size=6).map(" ".join))
QUERIES = ["aa", "bb cc", "dd dd aa", "zz", ""]


def test_words_are_stemmed_and_stop_words_left_out() -> None:
    assert list(words_of("english")("The running DOGS, and a cat!")) == ["run", "dog", "cat"]
    assert list(words_of("none")("The running dogs")) == ["the", "running", "dogs"]
    assert list(words_of("german")("Die Häuser und der Hund")) == ["haus", "hund"]
    with pytest.raises(InputError, match="got the language 'klingon', expected one of none, arab"):
        words_of("klingon")


def test_scores_are_those_of_bm25s() -> None:
    texts = ["red fox", "red red dog", "a fox and a dog and a bird", "nothing of it"]
    library = bm25s.BM25()
    library.index([re.findall(r"\w\w+", text) for text in texts], show_progress=False)
    found = library.retrieve([["red", "fox"]], k=3, show_progress=False)
    (scores, rows) = next(rank_by_words([Bm25.build(texts, "none")], ["red fox"], 9))
    assert rows.tolist() == found.documents[0].tolist()
    np.testing.assert_allclose(scores, found.scores[0], rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(first=TEXTS.filter(bool), second=TEXTS.filter(bool), data=st.data())
def test_parts_score_as_one_built_anew(
    first: list[str], second: list[str], data: st.DataObject
) -> None:
    gone = data.draw(st.lists(st.booleans(), min_size=len(first), max_size=len(first)))
    parts = [Bm25.build(each, "none") for each in (first, second)]
    left = [row for row in range(len(first) + len(second)) if not (gone + [False] * 99)[row]]
    whole = Bm25.build([[*first, *second][row] for row in left], "none")
    dead = [np.array(gone), None]
    pairs = zip(
        rank_by_words([whole], QUERIES, 99), rank_by_words(parts, QUERIES, 99, dead), strict=True
    )
    for (expected, _), (scores, rows) in pairs:
        assert set(rows.tolist()) <= set(left)
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


def test_equal_scores_come_in_the_order_of_rows() -> None:
    _, rows = next(rank_by_words([Bm25.build(["aa"] * 9 + ["bb"], "none")], ["aa"], 3))
    assert rows.tolist() == [0, 1, 2]


def test_documents_without_words(tmp_path: Path) -> None:
    Bm25.build(["the", "", "!"]).save(tmp_path / "bm25")
    opened = Bm25.open(tmp_path / "bm25", "english")
    ((scores, rows),) = rank_by_words([opened], ["the cat"], 3)
    assert len(scores) == len(rows) == 0


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    Bm25.build(["one text"]).save(tmp_path / "bm25")
    (tmp_path / "bm25" / "params.index.json").write_text("{")
    with pytest.raises(InputError, match="bm25: not a readable BM25 index"):
        Bm25.open(tmp_path / "bm25", "english")
