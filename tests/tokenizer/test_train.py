"""Tokenizers of your own: trained, with their layout and limits; derived from OLMo's; extended."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import tokenizers
from tests.tasks.pretraining.small import make_tokenizer

from modernbert.errors import InputError, TokenizerError
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.tokenizer.train import (
    MIN_VOCAB_SIZE,
    PUBLISHED_FINGERPRINT,
    derive,
    extend,
    named_slots,
    train,
)


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


@pytest.fixture(scope="module")
def olmo_file(shared_data: Path) -> Path:
    return shared_data / "tokenizer" / "olmo-dolma-v1_5.json"


@pytest.fixture(scope="module")
def derived(olmo_file: Path) -> Tokenizer:
    return derive(olmo_file)


def test_saved_json_equals_the_published(
    derived: Tokenizer, published_file: Path, tmp_path: Path
) -> None:
    derived.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert saved == json.loads(published_file.read_text(encoding="utf-8"))


def test_fingerprint_is_that_of_the_published(published: Tokenizer) -> None:
    assert published.fingerprint == PUBLISHED_FINGERPRINT


def test_ids_of_the_special_tokens(derived: Tokenizer) -> None:
    assert derived.special_token_ids == (50280, 50281, 50282, 50283, 50284)
    assert derived.vocab_size == 50_368
    assert derived.id_to_token(50_367) == "[unused82]"


def test_the_example_of_the_paper_s_model_card(derived: Tokenizer) -> None:
    ids = derived.encode("The capital of France is [MASK].")
    assert ids == [50281, 510, 5347, 273, 6181, 310, 50284, 15, 50282]


def test_ids_on_every_corpus_equal_the_oracle_s(
    derived: Tokenizer, published_file: Path, real_texts: list[str]
) -> None:
    oracle = tokenizers.Tokenizer.from_file(str(published_file))
    expected = [encoding.ids for encoding in oracle.encode_batch(real_texts)]
    assert derived.encode_batch(real_texts) == expected
    assert sum(map(len, expected)) > 300_000


def test_a_file_saved_by_another_version_is_the_same(olmo_file: Path, tmp_path: Path) -> None:
    resaved = tmp_path / "olmo.json"
    tokenizers.Tokenizer.from_file(str(olmo_file)).save(str(resaved))
    assert derive(resaved).fingerprint == PUBLISHED_FINGERPRINT


def test_refuses_modernbert_s_own_file(published_file: Path) -> None:
    with pytest.raises(TokenizerError, match="50,368 entries and 50,009 merges, expected OLMo's"):
        derive(published_file)


def test_refuses_a_file_of_the_right_size_with_other_content(
    olmo_file: Path, tmp_path: Path
) -> None:
    definition = json.loads(olmo_file.read_text(encoding="utf-8"))
    merges = definition["model"]["merges"]
    merges[7], merges[8] = merges[8], merges[7]
    changed = tmp_path / "olmo.json"
    changed.write_text(json.dumps(definition), encoding="utf-8")
    with pytest.raises(TokenizerError, match="different content"):
        derive(changed)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no such file"):
        derive(tmp_path / "olmo.json")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"model": {"vocab": {"a": 0}}}',
        '{"added_tokens": [], "model": {"vocab": [["a", 0.5]]}}',
    ],
)
def test_refuses_what_is_no_bpe(tmp_path: Path, content: str) -> None:
    path = tmp_path / "olmo.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TokenizerError, match=str(path)):
        derive(path)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


def test_new_tokens_take_the_first_free_slots(tokenizer: Tokenizer, tmp_path: Path) -> None:
    extended = extend(tokenizer, ["<order>", "Rhabarber"])
    first = tokenizer.token_to_id("[unused0]")
    assert first is not None
    assert extended.vocab_size == tokenizer.vocab_size
    assert named_slots(tokenizer, extended) == [first, first + 1]
    ids = extended.encode("one <order> two Rhabarber", special_tokens=False)
    assert first in ids and first + 1 in ids
    assert extended.encode("one two") == tokenizer.encode("one two")
    assert extended.fingerprint != tokenizer.fingerprint
    extended.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.fingerprint == extended.fingerprint
    assert named_slots(extended, extend(again, ["third"])) == [first + 2]


def test_transformers_sees_the_new_tokens(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    extended = extend(tokenizer, ["<order>"])
    extended.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("one <order>")["input_ids"] == extended.encode("one <order>")


def test_names_that_cannot_be(tokenizer: Tokenizer) -> None:
    for tokens, message in (
        (["[MASK]"], "is already a token"),
        (["<a>", "<a>"], "is already a token"),
        ([" "], "is empty"),
        ([f"<{number}>" for number in range(2_000)], "slots are unused"),
    ):
        with pytest.raises(TokenizerError, match=message):
            extend(tokenizer, tokens)


def test_other_tokenizers_are_told_apart(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match=r"token \d+ is '\[unused0\]', expected '<order>'"):
        named_slots(extend(tokenizer, ["<order>"]), tokenizer)
    definition = tokenizer.definition
    definition["added_tokens"].pop()
    with pytest.raises(TokenizerError, match="the vocabulary has"):
        named_slots(tokenizer, Tokenizer(definition))
