"""Cutting a text without changing its ids."""

from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.tokenizer.definition import BYTE_LEVEL, NORMALIZER, closing_tokens, plain_token
from modernbert.tokenizer.texts import may_cut, pieces
from modernbert.tokenizer.tokenizer import Tokenizer

# Blanks of all kinds, marks that compose, contractions, and tokens that swallow blanks.
BLANKS = [" ", "  ", "\n", "\t", "\u00a0", "\x1c", "\x85"]
LETTERS = ["a", "e", "'s", "7", ".", "\u0301", "\u4e2d", "\u1100", "\u1161", "\U0001f600"]
TOKENS = ["[MASK]", "[SEP]", "[unused3]"]
AWKWARD = st.lists(st.sampled_from([*BLANKS, *LETTERS, *TOKENS])).map("".join)


@settings(deadline=None, max_examples=300)
@given(text=AWKWARD | st.text(st.characters(exclude_categories=["Cs"])), size=st.integers(1, 5))
def test_pieces_have_the_ids_of_the_whole(small: Tokenizer, text: str, size: int) -> None:
    cut = list(pieces(text, piece_characters=size))
    assert "".join(cut) == text
    ids = small.encode_batch(cut, special_tokens=False)
    assert [i for row in ids for i in row] == small.encode(text, special_tokens=False)


def test_a_text_without_blanks_is_one_piece() -> None:
    assert list(pieces("x" * 1000, piece_characters=10)) == ["x" * 1000]
    assert list(pieces("")) == [""]


def test_cuts_as_often_as_it_may() -> None:
    text = "word " * 100
    assert max(map(len, pieces(text, piece_characters=50))) < 60


def test_only_modernbert_s_pipeline_is_cut() -> None:
    definition = {
        "normalizer": NORMALIZER,
        "pre_tokenizer": BYTE_LEVEL,
        "added_tokens": closing_tokens(256),
    }
    assert may_cut(definition)
    assert not may_cut({**definition, "normalizer": {"type": "Lowercase"}})
    assert not may_cut({**definition, "pre_tokenizer": {**BYTE_LEVEL, "use_regex": False}})
    for token in (plain_token("New York", 0), {**plain_token("x", 0), "rstrip": True}):
        assert not may_cut({**definition, "added_tokens": [token]})
