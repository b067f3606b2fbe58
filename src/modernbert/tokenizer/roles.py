"""Which token plays which part: roles such as `mask_token`, whatever the tokens are called.

Published ModernBERTs name them `[MASK]`, `<mask>` or `<MASK|LLM-jp>`. The files beside a
tokenizer.json say which is which, as they say it to transformers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from modernbert.errors import TokenizerError

Roles = Mapping[str, str]
"""The token of each role, by transformers' name of the role: `{"mask_token": "<mask>", ...}`."""

# The usual names, for a tokenizer.json that stands alone.
USUAL_TOKENS: Mapping[str, Sequence[str]] = {
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<cls>", "<s>", "<bos>"),
    "sep_token": ("[SEP]", "<sep>", "</s>", "<eos>"),
    "pad_token": ("[PAD]", "<pad>"),
    "mask_token": ("[MASK]", "<mask>"),
    "bos_token": ("<bos>", "<s>"),
    "eos_token": ("<eos>", "</s>"),
}


def usual_roles(vocab: Mapping[str, int]) -> dict[str, str]:
    """The roles by the usual names of their tokens, of those that a vocabulary has.

    >>> usual_roles({"<mask>": 0, "<s>": 1, "a": 2})
    {'cls_token': '<s>', 'mask_token': '<mask>', 'bos_token': '<s>'}
    """
    found = {
        role: next((token for token in tokens if token in vocab), None)
        for role, tokens in USUAL_TOKENS.items()
    }
    return {role: token for role, token in found.items() if token is not None}


def named_roles(files: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The roles that the files of a folder name; later files count more.

    Args:
        files: The contents of special_tokens_map.json and tokenizer_config.json. A token is a
            string, or an object with its `content`.

    Raises:
        TokenizerError: A token is neither.
    """
    roles: dict[str, str] = {}
    for content in files:
        for role in USUAL_TOKENS:
            token = content.get(role)
            if isinstance(token, dict):
                token = token.get("content")
            if isinstance(token, str):
                roles[role] = token
            elif token is not None:
                raise TokenizerError(f"{role}: got {token!r}, expected the name of a token")
    return roles
