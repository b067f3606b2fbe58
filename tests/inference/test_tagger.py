"""Tagger: words with the label of their first token, merged to entities."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.inference.tagger import Tagger, encode, merged
from modernbert.model.heads import TokenClassifier
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.word_splitting import WordSplitting

TEXTS = ["the square of 7", "not", "number 3, is less: the square!", ""]


@pytest.fixture(scope="module")
def tagger(tagger_folder: Path) -> Tagger:
    return Tagger.from_pretrained(tagger_folder, precision="float32")


def test_labels_are_those_of_first_tokens(tagger: Tagger, tagger_folder: Path) -> None:
    model = TokenClassifier.from_pretrained(tagger_folder)
    for words, found in (
        (words, next(tagger.words([words])))
        for words in (["the", "squares", "of", "numbers"], ["not"])
    ):
        encoding = tagger.tokenizer.encode_words(words)
        with torch.no_grad():
            scores = model(PackedBatch.from_sequences([encoding.token_ids])).softmax(1)
        assert len(found) == len(words)
        for number, span in enumerate(found):
            first = encoding.word_ids.index(number)
            assert span.label == model.labels[int(scores[first].argmax())]
            assert span.score == pytest.approx(scores[first].max().item(), abs=1e-5)
            assert (span.start, span.end) == (number, number + 1)


def test_words_of_a_text(tagger: Tagger) -> None:
    text = "Number 3's squares, naïve U.S. ones!"
    (words,) = tagger.words([text])
    assert [text[word.start : word.end] for word in words] == [
        "Number", "3's", "squares", ",", "naïve", "U.S.", "ones", "!",
    ]  # fmt: skip
    (of_list,) = tagger.words([[text[word.start : word.end] for word in words]])
    assert [(word.label, word.score) for word in words] == [
        (word.label, word.score) for word in of_list
    ]


def test_words_as_the_folder_says(tagger_folder: Path, tmp_path: Path) -> None:
    model = TokenClassifier.from_pretrained(tagger_folder)
    model.settings = replace(model.settings, splitting=WordSplitting(at="blanks"))
    model.save_pretrained(tmp_path)
    Tokenizer.from_pretrained(tagger_folder).save_pretrained(tmp_path)
    tagger = Tagger.from_pretrained(tmp_path, precision="float32")
    (words,) = tagger.words(["a b's, c."])
    assert [(word.start, word.end) for word in words] == [(0, 1), (2, 6), (7, 9)]


def test_entities_of_many_texts(tagger: Tagger) -> None:
    found = tagger.tag(TEXTS, batch_tokens=10)
    assert found == [merged(words) for words in tagger.words(TEXTS, batch_tokens=10)]
    assert found[-1] == []
    for text, entities in zip(TEXTS, found, strict=True):
        alone = tagger(text)
        assert [(e.label, e.start, e.end) for e in alone] == [
            (e.label, e.start, e.end) for e in entities
        ]
    assert any(found)


@settings(deadline=None, max_examples=50)
@given(
    text=st.lists(st.sampled_from(["number", "a", "é", "😀", "\u200b", ""]), max_size=60),
    max_seqlen=st.integers(4, 40),
    stride=st.integers(0, 9),
)
def test_windows_hold_every_word(
    tokenizer: Tokenizer, text: list[str], max_seqlen: int, stride: int
) -> None:
    stride = min(stride, max_seqlen - 3)
    encoded = encode(tokenizer, text, WordSplitting(), max_seqlen=max_seqlen, stride=stride)
    assert [start for start, _ in encoded.spans] == list(range(len(text)))
    whole = tokenizer.encode_words(text)
    for word, (window, place) in enumerate(encoded.places):
        ids = encoded.windows[window].token_ids
        assert 1 <= place < len(ids) - 1 <= max_seqlen - 1
        assert ids[place] == whole.token_ids[whole.word_ids.index(word)]
        around = min(place - 1, len(ids) - 2 - place)
        at_the_end = window in (0, len(encoded.windows) - 1)
        assert at_the_end or around >= (stride - 1) // 2


def test_long_texts_are_read_in_windows(tagger: Tagger, tagger_folder: Path) -> None:
    words = ["number", "the", "square", ","] * 40
    text = " ".join(words)
    longer = Tagger.from_pretrained(tagger_folder, precision="float32", max_seqlen=12, stride=4)
    for each in (tagger, longer):
        of_words, of_text = each.words([words, text])
        assert len(of_words) == len(of_text) == 160
        assert [word.label for word in of_words] == [word.label for word in of_text]
    with pytest.raises(InputError, match="stride: got 10 with room for 10 tokens in a window"):
        Tagger(longer.model, longer.tokenizer, max_seqlen=12, stride=10).tag(["a"])


def test_what_cannot_be(tagger: Tagger) -> None:
    with pytest.raises(InputError, match=r"^texts: got str, expected a list of texts"):
        tagger.tag("a text")
    with pytest.raises(InputError, match=r"texts\[0\]: got 7, expected a text"):
        tagger.tag([7])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"texts\[0\]\[1\]: got None, expected a text"):
        tagger.tag([["Ada", None]])  # type: ignore[list-item]
    for stride in (-1, 1.5):
        with pytest.raises(
            InputError, match=rf"^stride: got {stride}, expected a number of tokens"
        ):
            Tagger(tagger.model, tagger.tokenizer, stride=stride)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^splitting: got 'blanks', expected a WordSplitting"):
        Tagger(tagger.model, tagger.tokenizer, splitting="blanks")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^words\[0\]: got int, expected a str"):
        tagger.tag([[7]])  # type: ignore[list-item]


def test_a_list_is_a_batch(tagger: Tagger) -> None:
    texts = ["Ada met Bob.", ["Ada", "met", "Bob", "."]]
    assert tagger(texts) == tagger.tag(texts)
    assert tagger.tag(np.array([["a", "b"]])) == tagger.tag([["a", "b"]])
