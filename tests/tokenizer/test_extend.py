"""Adding tokens in unused slots."""

from pathlib import Path

import pytest
from tests.tasks.pretraining.small import make_tokenizer

from modernbert.errors import TokenizerError
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.tokenizer.train import extend, named_slots


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
