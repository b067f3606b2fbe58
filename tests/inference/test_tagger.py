"""Tagger: words with the label of their first token, merged to entities."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.batch import PackedBatch
from modernbert.errors import InputError, TruncationWarning
from modernbert.inference.tagger import Tagger, merged
from modernbert.inference.words import encode
from modernbert.model.heads import TokenClassifier
from modernbert.tokenizer.tokenizer import Tokenizer

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
    (words,) = tagger.words(["Number 3's squares, naïve!"])
    text = "Number 3's squares, naïve!"
    assert [text[word.start : word.end] for word in words] == [
        "Number", "3", "'", "s", "squares", ",", "naïve", "!",
    ]  # fmt: skip


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
@given(text=st.text(alphabet="ab 7,é😀e\u0301\n", max_size=30))
def test_words_of_any_text_are_in_order_and_hold_all_but_blanks(
    tokenizer: Tokenizer, text: str
) -> None:
    encoded = encode(tokenizer, text, 1000)
    assert len(encoded.first_tokens) == len(encoded.spans)
    assert encoded.first_tokens == sorted(set(encoded.first_tokens))
    end = 0
    for start, stop in encoded.spans:
        assert end <= start < stop
        assert not text[end:start].strip()
        end = stop
    assert not text[end:].strip()


def test_long_texts_are_cut(tagger: Tagger) -> None:
    words = ["number"] * 40
    for text in (words, " " + " ".join(words)):
        with pytest.warns(TruncationWarning, match=r"^1 of 1 texts are longer than 32 tokens"):
            (found,) = list(tagger.words([text]))
        assert len(found) == 30


def test_what_cannot_be(tagger: Tagger) -> None:
    with pytest.raises(InputError, match=r"^texts: got str, expected a list of texts"):
        tagger.tag("a text")
    with pytest.raises(InputError, match=r"^texts: got int, expected a str or a list of words"):
        tagger.tag([7])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"^words\[0\]: got int, expected a str"):
        tagger.tag([[7]])  # type: ignore[list-item]
