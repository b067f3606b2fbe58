"""Offsets into texts and words, and cutting a text without changing its ids."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.tokenizer.definition import BYTE_LEVEL, NORMALIZER, closing_tokens, plain_token
from modernbert.tokenizer.texts import may_cut, pieces
from modernbert.tokenizer.tokenizer import Tokenizer

# Without characters that are newer than Python's version of Unicode.
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=60)
# Marks that compose with the letters before them, blanks, and Hangul parts.
AWKWARD = st.text("ae \n\t\u0301\u0323\u0302\u0327\u1100\u1161\u11a8\u212b\u0344\U0001f600")
WORD = st.text(st.characters(exclude_categories=["Cs", "Z", "C"]), min_size=1)


def spelled(tokenizer: Tokenizer, text: str) -> list[str]:
    encoding = tokenizer.encode_with_offsets(text, special_tokens=False)
    return [text[start:end] for start, end in encoding.offsets]


def test_a_token_starts_after_its_space(published: Tokenizer) -> None:
    text = "The capital of  France\n is [MASK]."
    assert spelled(published, text) == [
        "The", "capital", "of", "  ", "France", "\n", "is", "[MASK]", "."
    ]  # fmt: skip


def test_special_tokens_stand_nowhere(small: Tokenizer) -> None:
    encoding = small.encode_with_offsets("a b")
    assert encoding.token_ids == small.encode("a b")
    assert encoding.offsets == [(0, 0), (0, 1), (2, 3), (0, 0)]


@pytest.mark.parametrize("letter", ["e\u0301", "x\u0323\u0302", "\u1100\u1161\u11a8", "\U0001f600"])
def test_a_letter_of_several_characters_is_whole(small: Tokenizer, letter: str) -> None:
    """Offsets count characters of the text as given, not of its composed form."""
    text = f"{letter} is {letter}{letter}, {letter}"
    encoding = small.encode_with_offsets(text, special_tokens=False)
    covered = {i for start, end in encoding.offsets for i in range(start, end)}
    assert {i for i, character in enumerate(text) if character != " "} <= covered
    assert encoding.offsets[-1][1] == len(text)


def test_the_bytes_of_a_composed_letter_stand_together(small: Tokenizer) -> None:
    encoding = small.encode_with_offsets("\u1100\u1161\u11a8", special_tokens=False)
    assert encoding.offsets == [(0, 3), (0, 3), (0, 3)]


def is_one_letter(overlap: str) -> bool:
    """Tokens overlap only inside one letter: bytes of a character, or marks that NFC reordered."""
    composed = unicodedata.normalize("NFC", overlap)
    return len(overlap) <= 1 or all(unicodedata.combining(mark) for mark in composed[1:])


@settings(deadline=None, max_examples=200)
@given(text=TEXTS | AWKWARD)
def test_spans_are_ordered_and_cover_every_character(small: Tokenizer, text: str) -> None:
    encoding = small.encode_with_offsets(text, special_tokens=False)
    assert encoding.token_ids == small.encode(text, special_tokens=False)
    covered = set()
    previous = (0, 0)
    for start, end in encoding.offsets:
        assert 0 <= start < end <= len(text)
        assert previous <= (start, end) and previous[1] <= end
        assert is_one_letter(text[start : previous[1]])
        covered.update(range(start, end))
        previous = (start, end)
    assert all(text[i].isspace() for i in set(range(len(text))) - covered)


@settings(deadline=None)
@given(text=TEXTS)
def test_truncation_cuts_offsets_alike(small: Tokenizer, text: str) -> None:
    whole = small.encode_with_offsets(text)
    cut = small.encode_with_offsets(text, max_seqlen=5)
    assert cut.token_ids == small.encode(text, max_seqlen=5)
    assert cut.offsets == [*whole.offsets[:-1][:4], (0, 0)]


def test_every_word_gets_its_space(published: Tokenizer) -> None:
    words = ["EU", "rejects", "German", "call", "."]
    encoding = published.encode_words(words)
    assert encoding.token_ids == published.encode(" EU rejects German call .")
    assert encoding.word_ids == [None, 0, 1, 2, 3, 4, None]
    assert encoding.offsets == [(0, 0), (0, 2), (0, 7), (0, 6), (0, 4), (0, 1), (0, 0)]


@settings(deadline=None, max_examples=200)
@given(words=st.lists(WORD, max_size=8))
def test_words_are_the_words_of_running_text(small: Tokenizer, words: list[str]) -> None:
    encoding = small.encode_words(words)
    running = "".join(f" {word}" for word in words)
    assert encoding.token_ids == small.encode(running)
    for index, word in enumerate(words):
        spans = [
            span
            for span, owner in zip(encoding.offsets, encoding.word_ids, strict=True)
            if owner == index
        ]
        assert spans[0][0] == 0 and spans[-1][1] == len(word)
        assert spans == sorted(spans)


def test_a_word_of_several_tokens(small: Tokenizer) -> None:
    encoding = small.encode_words(["qzxqzx", "is"])
    pieces = [slice(*span) for span in encoding.offsets[1:-2]]
    assert len(pieces) > 1
    assert "".join("qzxqzx"[piece] for piece in pieces) == "qzxqzx"


def test_every_word_has_a_token(small: Tokenizer) -> None:
    encoding = small.encode_words(["", "\n", "a", " b", "[MASK]"])
    assert set(encoding.word_ids) == {None, 0, 1, 2, 3, 4}
    assert small.encode_words([" b"]).token_ids == small.encode_words(["b"]).token_ids
    assert encoding.token_ids[-2] == small.mask_token_id
    assert encoding.offsets[-3:] == [(1, 2), (0, 6), (0, 0)]


def test_no_words_are_an_empty_sequence(small: Tokenizer) -> None:
    assert small.encode_words([]).token_ids == small.encode("")


def test_truncation_of_words(small: Tokenizer) -> None:
    words = ["alpha", "beta", "gamma"]
    whole, cut = small.encode_words(words), small.encode_words(words, max_seqlen=5)
    assert cut.token_ids == [*whole.token_ids[:4], small.sep_token_id]
    assert cut.word_ids == [*whole.word_ids[:4], None]
    assert cut.offsets == [*whole.offsets[:4], (0, 0)]


# Blanks of all kinds, marks that compose, contractions, and tokens that swallow blanks.
BLANKS = [" ", "  ", "\n", "\t", "\u00a0", "\x1c", "\x85"]
LETTERS = ["a", "e", "'s", "7", ".", "\u0301", "\u4e2d", "\u1100", "\u1161", "\U0001f600"]
TOKENS = ["[MASK]", "[SEP]", "[unused3]"]
PIECES = st.lists(st.sampled_from([*BLANKS, *LETTERS, *TOKENS])).map("".join)


@settings(deadline=None, max_examples=300)
@given(text=PIECES | st.text(st.characters(exclude_categories=["Cs"])), size=st.integers(1, 5))
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
