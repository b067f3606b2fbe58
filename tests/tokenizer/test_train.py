"""Training a tokenizer: its layout, its pipeline, its limits."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from modernbert.errors import InputError
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.tokenizer.train import MIN_VOCAB_SIZE, train


def saved(tokenizer: Tokenizer, folder: Path) -> dict:
    tokenizer.save_pretrained(folder)
    return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))


def test_every_id_exists_and_the_layout_is_modernbert_s(small: Tokenizer) -> None:
    tokens = [small.id_to_token(i) for i in range(small.vocab_size)]
    assert small.vocab_size == 1024 == len(set(tokens))
    assert tokens[-83:] == [f"[unused{i}]" for i in range(83)]
    assert tokens[-88:-83] == ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    assert tokens[-111:-88] == [" " * length for length in range(24, 1, -1)]
    assert len(tokens[0]) == 1 and len(tokens[256]) == 2  # bytes, then merges


def test_pipeline_is_the_published_one(
    small: Tokenizer, published_file: Path, tmp_path: Path
) -> None:
    ours, published = saved(small, tmp_path), json.loads(published_file.read_text("utf-8"))
    assert ours.keys() == published.keys()
    for part in ("normalizer", "pre_tokenizer", "decoder", "truncation", "padding", "version"):
        assert ours[part] == published[part]
    for part in ("single", "pair"):
        assert ours["post_processor"][part] == published["post_processor"][part]
    assert ours["model"].keys() == published["model"].keys()
    flags = {token["content"]: {**token, "id": 0} for token in published["added_tokens"]}
    assert all({**token, "id": 0} == flags[token["content"]] for token in ours["added_tokens"])


@pytest.mark.parametrize(("asked", "given"), [(MIN_VOCAB_SIZE, 384), (384, 384), (385, 448)])
def test_size_is_rounded_up_to_a_multiple_of_64(
    python_sources: list[str], asked: int, given: int
) -> None:
    assert train(python_sources, vocab_size=asked).vocab_size == given


def test_a_small_corpus_gives_a_small_full_vocabulary() -> None:
    tokenizer = train(["hello hello world"], vocab_size=50_368)
    assert tokenizer.vocab_size == 384  # 256 bytes, 4 merges, 111 added, 13 more unused slots
    assert tokenizer.id_to_token(383) == "[unused95]"
    assert len(tokenizer.encode("hello", special_tokens=False)) == 1


def test_equal_texts_give_an_equal_tokenizer(python_sources: list[str], small: Tokenizer) -> None:
    again = train(iter(python_sources), vocab_size=1024)
    assert again.fingerprint == small.fingerprint
    assert train(python_sources[:2], vocab_size=1024).fingerprint != small.fingerprint


def test_learns_what_it_then_uses(python_sources: list[str]) -> None:
    """Runs of spaces are cut out before the BPE, so no merge is spent on indentation."""
    tokenizer = train(python_sources, vocab_size=2048)
    learned = [tokenizer.id_to_token(i) for i in range(256, 2048 - 111)]
    assert not [token for token in learned if "ĠĠ" in token or "ĊĠ" in token]
    code = "\n        return x"
    tokens = [tokenizer.id_to_token(i) for i in tokenizer.encode(code, special_tokens=False)]
    assert tokens == ["Ċ", "        ", "return", "Ġx"]


def test_composes_before_it_counts() -> None:
    tokenizer = train(["e\u0301te\u0301 " * 10], vocab_size=448)
    assert tokenizer.encode("\u00e9t\u00e9") == tokenizer.encode("e\u0301te\u0301")
    assert len(tokenizer.encode("\u00e9t\u00e9", special_tokens=False)) == 1


def test_is_streamed(python_sources: list[str]) -> None:
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        for _ in range(3):
            read += 1
            yield from python_sources

    assert train(texts(), vocab_size=512).vocab_size == 512
    assert read == 3


def test_long_texts_are_cut_without_changing_what_is_learned() -> None:
    words = ["alpha", "beta", "gamma", "  delta", "\nepsilon"]
    lines = random.Random(0).choices(words, k=40_000)
    whole = train([" ".join(lines)], vocab_size=512)  # several pieces
    cut = train([" ".join(lines[:100]), *(f" {line}" for line in lines[100:])], vocab_size=512)
    assert whole.fingerprint == cut.fingerprint


@pytest.mark.parametrize("texts", [[], ["", ""], [" \n"]])
def test_refuses_an_empty_corpus(texts: list[str]) -> None:
    with pytest.raises(InputError, match="no text"):
        train(texts, vocab_size=512)


@pytest.mark.parametrize(
    ("bad", "message"),
    [(None, "got NoneType"), (b"x", "got bytes"), ("\ud800", "lone surrogate")],
)
def test_names_the_index_of_a_bad_text(bad: object, message: str) -> None:
    with pytest.raises(InputError, match=rf"texts\[1\]: .*{message}"):
        train(["abc", bad], vocab_size=512)  # type: ignore[list-item]


def test_refuses_one_str_for_a_corpus() -> None:
    with pytest.raises(InputError, match="got a str"):
        train("abc", vocab_size=512)


def test_refuses_a_vocabulary_that_is_too_small() -> None:
    with pytest.raises(InputError, match="got 366, expected at least 367"):
        train(["abc"], vocab_size=366)


def test_an_error_of_the_source_comes_through() -> None:
    def texts() -> Iterator[str]:
        yield "abc"
        raise ConnectionError("the disk is gone")

    with pytest.raises(ConnectionError, match="gone"):
        train(texts(), vocab_size=512)


@pytest.mark.parametrize("vocab_size", [-5, MIN_VOCAB_SIZE - 1, 99_999_999_999])
def test_impossible_sizes(vocab_size: int) -> None:
    with pytest.raises(InputError, match=rf"^vocab_size: got {vocab_size}, expected at"):
        train(["a text"], vocab_size=vocab_size)
