"""Training a tokenizer on your own corpus, with ModernBERT's pipeline."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from modernbert.errors import InputError
from modernbert.tokenizer.definition import (
    NUM_UNUSED,
    SPECIAL_TOKENS,
    closing_tokens,
    modernbert_definition,
    plain_token,
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
