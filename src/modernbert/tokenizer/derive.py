"""Tokenizers made from others: ModernBERT's from OLMo's, and names for free slots."""

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
"""`fingerprint` of the tokenizer that ModernBERT was published with."""

_OLMO_ENTRIES = 50_280
_OLMO_MERGES = 50_009


def derive(olmo_json: Path | str) -> Tokenizer:
    """Build ModernBERT's tokenizer from OLMo's published tokenizer.json (P section 2.2.1).

    The vocabulary and merges stay; BERT's special tokens and 83 unused slots follow them, 50,368
    entries in all, and the template becomes BERT's.

    olmo_json: the file `allenai_gpt-neox-olmo-dolma-v1_5.json`.

    Raises:
        TokenizerError: the file is missing, broken or not exactly OLMo's tokenizer.
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
            f"{path}: has the size of OLMo's tokenizer but other content; expected an unchanged "
            "allenai_gpt-neox-olmo-dolma-v1_5.json"
        )
    return Tokenizer(definition)


_UNUSED = re.compile(r"\[unused\d+\]")


def extend(tokenizer: Tokenizer, tokens: Sequence[str]) -> Tokenizer:
    """The same tokenizer with the first of its free slots named; the vocabulary keeps its size.

    A token's name in a text becomes that token wherever it stands, after normalisation, as with
    every token that is not special.

    Raises:
        TokenizerError: an empty name, one that is a token already, or too few free slots.
    """
    definition = tokenizer.definition
    known = {*definition["model"]["vocab"], *(t["content"] for t in definition["added_tokens"])}
    for token in tokens:
        if not token.strip() or token in known:
            reason = "is a token already" if token in known else "is empty"
            raise TokenizerError(f"{token!r}: {reason}; expected a name of its own")
        known.add(token)
    free = sorted(
        (each for each in definition["added_tokens"] if is_unused(each["content"])),
        key=lambda each: int(each["id"]),
    )
    if len(tokens) > len(free):
        raise TokenizerError(f"got {len(tokens)} tokens, but there are only {len(free)} free slots")
    for slot, token in zip(free, tokens, strict=False):
        slot["content"] = token
    return Tokenizer(definition, model_max_length=tokenizer.model_max_length, roles=tokenizer.roles)


def is_unused(token: str) -> bool:
    """Whether a token is the name of a free slot.

    >>> is_unused("[unused7]"), is_unused("<order>")
    (True, False)
    """
    return _UNUSED.fullmatch(token) is not None


def named_slots(before: Tokenizer, after: Tokenizer) -> list[int]:
    """The ids of the free slots that have got a name from one tokenizer to the other, ascending.

    Raises:
        TokenizerError: they differ in other tokens too.
    """
    if before.vocab_size != after.vocab_size:
        raise TokenizerError(
            f"the vocabulary has {after.vocab_size} entries, expected {before.vocab_size}"
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
