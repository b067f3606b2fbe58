"""Names for free slots of a vocabulary, so that a field's own words become tokens."""

import re
from collections.abc import Sequence

from modernbert.errors import TokenizerError
from modernbert.tokenizer.tokenizer import Tokenizer

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
