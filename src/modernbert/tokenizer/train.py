"""Tokenizers of your own: trained on a corpus, derived from OLMo's, or extended."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from modernbert.errors import InputError, TokenizerError
from modernbert.tokenizer.definition import (
    NUM_UNUSED,
    SPECIAL_TOKENS,
    closing_tokens,
    fingerprint,
    modernbert_definition,
    plain_token,
    read_definition,
)
from modernbert.tokenizer.texts import pieces, require_text
from modernbert.tokenizer.tokenizer import Tokenizer

SIZE_MULTIPLE = 64
"""The size of the vocabulary is a multiple of this, for fast matrix products (P section 2.2.1)."""

SPACE_RUNS = range(24, 1, -1)
"""Lengths of runs of spaces that are one token each, for indentation, as in OLMo's tokenizer."""

_NUM_BYTES = 256
_MIN_PAIR_COUNT = 2
_NUM_ADDED = len(SPACE_RUNS) + len(SPECIAL_TOKENS) + NUM_UNUSED
MIN_VOCAB_SIZE = _NUM_BYTES + _NUM_ADDED
_MAX_VOCAB_SIZE = 1 << 22  # `tokenizers` allocates it at once, and aborts the process if it cannot

PUBLISHED_FINGERPRINT = "3043f35dde0634d777c483f027cf639a26898954d73df902cce65ebb363d8a92"
"""The `fingerprint` of the tokenizer that ModernBERT was published with."""

_OLMO_ENTRIES = 50_280
_OLMO_MERGES = 50_009


def train(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE on texts and give it ModernBERT's pipeline (P section 2.2.1).

    The ids are, in this order, 256 bytes, the learned tokens, runs of 24 to 2 spaces, the special
    tokens [UNK] [CLS] [SEP] [PAD] [MASK], and 83 unused slots. The same texts in the same order
    give the same tokenizer.

    Args:
        texts: The texts, read once as a stream. Memory grows only with the number of different
            words.
        vocab_size: The number of all ids together, rounded up to a multiple of 64. The vocabulary
            gets smaller, still a multiple of 64, when too few pairs of the corpus occur twice; see
            `Tokenizer.vocab_size`.

    Returns:
        The tokenizer.

    Raises:
        InputError: There is no text, a text is not a str, or `vocab_size` cannot be.
    """
    if vocab_size > _MAX_VOCAB_SIZE:
        raise InputError(f"vocab_size: got {vocab_size}, expected at most {_MAX_VOCAB_SIZE:,}")
    if vocab_size < MIN_VOCAB_SIZE:
        raise InputError(
            f"vocab_size: got {vocab_size}, expected at least {MIN_VOCAB_SIZE}: {_NUM_BYTES} "
            f"bytes, {len(SPACE_RUNS)} runs of spaces, {len(SPECIAL_TOKENS)} special tokens and "
            f"{NUM_UNUSED} unused slots"
        )
    vocab, merges = _train_bpe(_checked(texts), _round_up(vocab_size) - _NUM_ADDED)
    runs = [plain_token(" " * length, len(vocab) + i) for i, length in enumerate(SPACE_RUNS)]
    num_fillers = _round_up(len(vocab) + _NUM_ADDED) - len(vocab) - _NUM_ADDED
    closing = closing_tokens(len(vocab) + len(runs), num_unused=NUM_UNUSED + num_fillers)
    return Tokenizer(
        modernbert_definition(vocab=vocab, merges=merges, added_tokens=[*runs, *closing])
    )


def _train_bpe(pieces_of_text: Iterator[str], num_entries: int) -> tuple[dict[str, int], list[Any]]:
    """Return the vocabulary, in the order of its ids, and the merges of a byte-level BPE."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    # Runs of spaces are tokens of their own and never reach the BPE, so it does not learn them.
    runs = tokenizers.Regex(f" {{{SPACE_RUNS[-1]},{SPACE_RUNS[0]}}}")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(runs, behavior="removed"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=num_entries,
        min_frequency=_MIN_PAIR_COUNT,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(pieces_of_text, trainer=trainer)
    model = json.loads(backend.to_str())["model"]
    return dict(sorted(model["vocab"].items(), key=lambda entry: entry[1])), model["merges"]


def _checked(texts: Iterable[str]) -> Iterator[str]:
    """Yield the pieces of all texts, so that a long text takes no more memory than a short one."""
    if isinstance(texts, str | bytes):
        raise InputError(f"texts: got a {type(texts).__name__}, expected an iterable of texts")
    any_text = False
    for index, text in enumerate(texts):
        require_text(text, f"texts[{index}]")
        any_text = any_text or bool(text.strip())
        yield from pieces(text)
    if not any_text:
        raise InputError("texts: got no text, expected some to learn a vocabulary from")


def _round_up(size: int) -> int:
    return -(-size // SIZE_MULTIPLE) * SIZE_MULTIPLE


def derive(olmo_json: Path | str) -> Tokenizer:
    """Build ModernBERT's tokenizer from OLMo's published tokenizer.json (P section 2.2.1).

    OLMo's vocabulary and merges are kept. BERT's special tokens and 83 unused slots follow them,
    which makes 50,368 entries, and the template becomes BERT's.

    Args:
        olmo_json: The file `allenai_gpt-neox-olmo-dolma-v1_5.json`.

    Returns:
        The tokenizer, equal to the published one.

    Raises:
        TokenizerError: The file is missing, broken or not exactly OLMo's tokenizer.
    """
    path = Path(olmo_json)
    olmo = read_definition(path)
    model, added = olmo["model"], olmo["added_tokens"]
    vocab = model["vocab"] if isinstance(model["vocab"], dict) else {}
    merges = model.get("merges") or []
    counts = (len(vocab.keys() | {token["content"] for token in added}), len(merges))
    if counts != (_OLMO_ENTRIES, _OLMO_MERGES):
        raise TokenizerError(
            f"{path}: got {counts[0]:,} entries and {counts[1]:,} merges, expected OLMo's "
            f"{_OLMO_ENTRIES:,} and {_OLMO_MERGES:,} (allenai_gpt-neox-olmo-dolma-v1_5.json)"
        )
    definition = modernbert_definition(
        vocab=vocab, merges=merges, added_tokens=[*added, *closing_tokens(_OLMO_ENTRIES)]
    )
    if fingerprint(definition) != PUBLISHED_FINGERPRINT:
        raise TokenizerError(
            f"{path}: has the size of OLMo's tokenizer but different content; expected an "
            "unchanged allenai_gpt-neox-olmo-dolma-v1_5.json"
        )
    return Tokenizer(definition)


_UNUSED = re.compile(r"\[unused\d+\]")


def extend(tokenizer: Tokenizer, tokens: Sequence[str]) -> Tokenizer:
    """Add tokens in the first unused slots of a vocabulary, which keeps its size.

    A new token is found wherever its name occurs in a text, after normalisation, as for every
    added token that is not special.

    Args:
        tokenizer: The tokenizer to extend; it is not changed.
        tokens: The names of the new tokens.

    Returns:
        The extended tokenizer.

    Raises:
        TokenizerError: A name is empty or already a token, or there are too few unused slots.
    """
    definition = tokenizer.definition
    known = {*definition["model"]["vocab"], *(t["content"] for t in definition["added_tokens"])}
    for token in tokens:
        if not token.strip() or token in known:
            reason = "is already a token" if token in known else "is empty"
            raise TokenizerError(f"{token!r}: {reason}; expected a new token")
        known.add(token)
    free = sorted(
        (each for each in definition["added_tokens"] if is_unused(each["content"])),
        key=lambda each: int(each["id"]),
    )
    if len(tokens) > len(free):
        raise TokenizerError(f"got {len(tokens)} tokens, but only {len(free)} slots are unused")
    for slot, token in zip(free, tokens, strict=False):
        slot["content"] = token
    return Tokenizer(definition, model_max_length=tokenizer.model_max_length, roles=tokenizer.roles)


def is_unused(token: str) -> bool:
    """Return whether a token is the name of an unused slot.

    >>> is_unused("[unused7]"), is_unused("<order>")
    (True, False)
    """
    return _UNUSED.fullmatch(token) is not None


def named_slots(before: Tokenizer, after: Tokenizer) -> list[int]:
    """List the unused slots of one tokenizer that are tokens of another.

    Args:
        before: The tokenizer with the unused slots.
        after: The extended tokenizer.

    Returns:
        The ids of the slots, ascending.

    Raises:
        TokenizerError: The tokenizers also differ in other tokens.
    """
    if before.vocab_size != after.vocab_size:
        raise TokenizerError(
            f"the vocabulary has {after.vocab_size:,} tokens, expected {before.vocab_size:,}"
        )
    changed = []
    for token_id in range(before.vocab_size):
        old, new = before.id_to_token(token_id), after.id_to_token(token_id)
        if old == new:
            continue
        if not is_unused(old):
            raise TokenizerError(f"token {token_id} is {new!r}, expected {old!r}")
        changed.append(token_id)
    return changed
