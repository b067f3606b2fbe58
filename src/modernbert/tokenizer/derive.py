"""Deriving ModernBERT's tokenizer from OLMo's, and adding tokens in unused slots."""

import re
from collections.abc import Sequence
from pathlib import Path

from modernbert.errors import TokenizerError
from modernbert.tokenizer.definition import (
    closing_tokens,
    fingerprint,
    modernbert_definition,
    read_definition,
)
from modernbert.tokenizer.tokenizer import Tokenizer

PUBLISHED_FINGERPRINT = "3043f35dde0634d777c483f027cf639a26898954d73df902cce65ebb363d8a92"
"""The `fingerprint` of the tokenizer that ModernBERT was published with."""

_OLMO_ENTRIES = 50_280
_OLMO_MERGES = 50_009


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
