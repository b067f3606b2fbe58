"""`Tokenizer`: framing, truncation, batches, round trips, and what it refuses."""

import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import NFC

from modernbert.errors import InputError
from modernbert.tokenizer.definition import BYTE_LEVEL, plain_token
from modernbert.tokenizer.tokenizer import Tokenizer

from .conftest import SAMPLES

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
PLAIN_TEXTS = TEXTS.filter(lambda text: "[" not in text and "|" not in text)


def composed(text: str) -> str:
    """NFC by the library's own version of Unicode, which may be newer than Python's."""
    return str(NFC().normalize_str(text))


def test_single_and_pair_frames(small: Tokenizer) -> None:
    first, second = (small.encode(text, special_tokens=False) for text in ("one", "two"))
    cls, sep = small.cls_token_id, small.sep_token_id
    assert small.encode("one") == [cls, *first, sep]
    assert small.encode("one", "two") == [cls, *first, sep, *second, sep]
    assert small.encode("one", "two", special_tokens=False) == first + second
    assert small.encode("") == [cls, sep]
    assert small.encode("", "") == [cls, sep, sep]


def test_mask_takes_the_space_before_it(small: Tokenizer) -> None:
    ids = small.encode("is [MASK].", special_tokens=False)
    assert ids == [*small.encode("is", special_tokens=False), small.mask_token_id, ids[-1]]


@settings(deadline=None)
@given(text=PLAIN_TEXTS)
def test_round_trip_is_the_composed_text(small: Tokenizer, text: str) -> None:
    ids = small.encode(text)
    assert small.decode(ids, skip_special_tokens=True) == composed(text)


@pytest.mark.parametrize("text", SAMPLES)
def test_round_trip_of_samples(small: Tokenizer, text: str) -> None:
    if "[MASK]" not in text:
        assert small.decode(small.encode(text, special_tokens=False)) == composed(text)
    assert small.decode(small.encode("a b")) == "[CLS]a b[SEP]"


@settings(deadline=None)
@given(texts=st.lists(TEXTS, max_size=6), max_seqlen=st.none() | st.integers(3, 12))
def test_batch_is_each_alone(small: Tokenizer, texts: list[str], max_seqlen: int | None) -> None:
    batch = small.encode_batch(iter(texts), max_seqlen=max_seqlen)
    assert batch == [small.encode(text, max_seqlen=max_seqlen) for text in texts]
    rows = small.encode_batch(texts, texts[::-1], special_tokens=False)
    assert rows == [
        small.encode(text, pair, special_tokens=False)
        for text, pair in zip(texts, texts[::-1], strict=True)
    ]
    assert small.decode_batch(rows) == [small.decode(row) for row in rows]


@settings(deadline=None)
@given(text=TEXTS, max_seqlen=st.integers(3, 30))
def test_truncation_keeps_the_frame_and_the_beginning(
    small: Tokenizer, text: str, max_seqlen: int
) -> None:
    whole, cut = small.encode(text), small.encode(text, max_seqlen=max_seqlen)
    assert len(cut) == min(len(whole), max_seqlen)
    assert cut[0] == small.cls_token_id and cut[-1] == small.sep_token_id
    assert cut[:-1] == whole[: len(cut) - 1]
    assert small.encode(text) == whole  # no state is left behind
    bare = small.encode(text, special_tokens=False, max_seqlen=max_seqlen)
    assert bare == whole[1:-1][:max_seqlen]


@pytest.mark.parametrize(
    ("kwargs", "least"),
    [({}, 3), ({"text_pair": "b"}, 4), ({"special_tokens": False}, 1)],
)
def test_refuses_a_limit_without_room_for_text(small: Tokenizer, kwargs: dict, least: int) -> None:
    assert len(small.encode("a", max_seqlen=least, **kwargs)) <= least
    with pytest.raises(InputError, match=f"got {least - 1}, expected at least {least}"):
        small.encode("a", max_seqlen=least - 1, **kwargs)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "got NoneType, expected a str"),
        (b"bytes", "got bytes, expected a str"),
        (("a", "b"), "got tuple, expected a str"),
        ("abc\ud800", r"lone surrogate '\\ud800' at character 3"),
    ],
)
def test_names_the_text_that_is_no_text(small: Tokenizer, bad: object, message: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "text": lambda: small.encode(bad),  # type: ignore[arg-type]
        r"texts\[1\]": lambda: small.encode_batch(["a", bad]),  # type: ignore[list-item]
        r"text_pairs\[0\]": lambda: small.encode_batch(["a"], [bad]),  # type: ignore[list-item]
        r"words\[2\]": lambda: small.encode_words(["a", "b", bad]),  # type: ignore[list-item]
    }
    for name, call in calls.items():
        with pytest.raises(InputError, match=f"^{name}: .*{message}"):
            call()
    if bad is not None:
        with pytest.raises(InputError, match=f"^text_pair: .*{message}"):
            small.encode("a", bad)  # type: ignore[arg-type]


def test_refuses_what_is_no_list_of_texts(small: Tokenizer) -> None:
    for texts in ("abc", b"abc", None, 3):
        with pytest.raises(InputError, match="expected a list of str"):
            small.encode_batch(texts)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="text_pairs: got 1 for 2 texts"):
        small.encode_batch(["a", "b"], ["c"])
    assert small.encode_batch([]) == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (-1, "got -1, expected an id from 0 to 1023"),
        (1024, "got 1024, expected an id from 0 to 1023"),
        (0.5, "expected a sequence of token ids"),
        ("7", "expected a sequence of token ids"),
    ],
)
def test_refuses_ids_outside_the_vocabulary(small: Tokenizer, bad: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"token_ids: {message}"):
        small.decode([5, bad])
    with pytest.raises(InputError, match=rf"batch\[1\]: {message}"):
        small.decode_batch([[5], [bad]])
    with pytest.raises(InputError, match=f"token_id: {message}"):
        small.id_to_token(bad)


def test_decodes_arrays_and_tensors(small: Tokenizer) -> None:
    ids = small.encode("some text", special_tokens=False)
    assert small.decode(np.array(ids, dtype=np.uint16)) == "some text"
    assert small.decode(torch.tensor(ids)) == "some text"
    assert small.decode([]) == ""


def test_tokens_and_ids(small: Tokenizer) -> None:
    assert small.token_to_id("[MASK]") == small.mask_token_id
    assert small.token_to_id("no such token") is None
    assert all(small.token_to_id(small.id_to_token(i)) == i for i in range(small.vocab_size))


def test_pickle_keeps_everything(small: Tokenizer) -> None:
    tokenizer = Tokenizer(json.loads(small._json), model_max_length=16)
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.fingerprint == small.fingerprint
    assert copy.model_max_length == 16
    assert copy.encode(SAMPLES[2]) == small.encode(SAMPLES[2])


def test_fingerprint_sees_one_merge(published: Tokenizer, small: Tokenizer) -> None:
    assert len(published.fingerprint) == 64
    assert published.fingerprint != small.fingerprint


def test_a_long_text_has_the_ids_of_the_whole(published: Tokenizer, real_texts: list[str]) -> None:
    text = "".join(real_texts)[:1_100_000]
    expected = published._backend.encode(text, add_special_tokens=False).ids
    assert len(text) > 1_000_000
    assert published.encode(text, special_tokens=False) == expected


def test_a_token_across_blanks_forbids_cutting(small: Tokenizer) -> None:
    """A user's own added token may hold a blank: then a long text is not cut there."""
    first_unused = small.vocab_size - 83
    own = [plain_token("New York", first_unused)]
    tokenizer = with_added_tokens(small, own)
    text = "x" * 65_533 + "New York"
    assert small.encode(text)[-4:] != tokenizer.encode(text)[-4:]
    assert tokenizer.encode(text)[-2] == first_unused


def with_added_tokens(tokenizer: Tokenizer, added: list[dict]) -> Tokenizer:
    """The same tokenizer, with unused slots given to other tokens."""
    definition = json.loads(tokenizer._json)
    taken = {token["id"] for token in added}
    kept = [token for token in definition["added_tokens"] if token["id"] not in taken]
    definition["added_tokens"] = sorted([*kept, *added], key=lambda token: token["id"])
    return Tokenizer(definition)


def test_without_a_template_nothing_is_added(small: Tokenizer) -> None:
    definition = json.loads(small._json)
    for template in (None, BYTE_LEVEL):
        bare = Tokenizer({**definition, "post_processor": template})
        assert bare.encode("a b") == small.encode("a b", special_tokens=False)
        assert bare.special_token_ids == small.special_token_ids
