"""A tokenizer's folder: finding it, the roles of its tokens, and writing what transformers loads.

Published ModernBERT models call the mask `[MASK]`, `<mask>` or `<MASK|LLM-jp>`. The files next to
tokenizer.json name the token of each role, and transformers reads the same files.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modernbert import hub
from modernbert.errors import TokenizerError
from modernbert.files import updated_folder
from modernbert.json_files import read_object
from modernbert.kinds import TOKENIZER_FILE, tokenizer_folder

Roles = Mapping[str, str]
"""The token of each role, by transformers' name of the role: `{"mask_token": "<mask>", ...}`."""

# The usual names, for a tokenizer.json without the other files.
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
    """Find the tokens of a vocabulary that have the usual name of a role.

    >>> usual_roles({"<mask>": 0, "<s>": 1, "a": 2})
    {'cls_token': '<s>', 'mask_token': '<mask>', 'bos_token': '<s>'}

    Args:
        vocab: The id of each token.

    Returns:
        The token of each role that was found.
    """
    found = {
        role: next((token for token in tokens if token in vocab), None)
        for role, tokens in USUAL_TOKENS.items()
    }
    return {role: token for role, token in found.items() if token is not None}


def named_roles(files: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Collect the roles that the files of a folder name; later files take precedence.

    Args:
        files: The contents of special_tokens_map.json and tokenizer_config.json. A token is a
            string, or an object with its `content`.

    Returns:
        The token of each named role.

    Raises:
        TokenizerError: A token is neither a string nor an object with a `content`.
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
                raise TokenizerError(f"{role}: got {token!r}, expected a token as a string")
    return roles


CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"

_MASK = "attention_mask"
# Keys that would change token ids, and the one value that is supported of each.
_FIXED = {"truncation_side": "right", "split_special_tokens": False}

UNLIMITED = 10**30
"""What transformers writes as `model_max_length` of a tokenizer without a limit."""


def find_folder(folder_or_hub_id: str | Path) -> Path:
    """Find the folder of a tokenizer; the files of a hub id are downloaded if necessary.

    Args:
        folder_or_hub_id: A local folder or a hub id.

    Returns:
        The local folder that holds tokenizer.json.

    Raises:
        TokenizerError: There is no such folder, or the hub id cannot be downloaded.
    """
    folder = hub.find_folder(
        folder_or_hub_id,
        patterns=[TOKENIZER_FILE, CONFIG_FILE, SPECIAL_TOKENS_FILE],  # not the weights
        content=f"a {TOKENIZER_FILE}",
        error=TokenizerError,
    )
    return tokenizer_folder(folder)


def read_roles(folder: Path) -> dict[str, str]:
    """Read the token of each role from the files next to tokenizer.json.

    Raises:
        TokenizerError: A file exists but is not valid JSON.
    """
    config = read_object(folder / CONFIG_FILE, TokenizerError)
    for key, supported in _FIXED.items():
        if config.get(key, supported) != supported:
            raise TokenizerError(
                f"{folder / CONFIG_FILE}: {key}: {config[key]!r} is not supported; "
                f"{supported!r} is, which you can write there"
            )
    inputs = config.get("model_input_names")
    if isinstance(inputs, list) and _MASK not in inputs:
        raise TokenizerError(
            f"{folder / CONFIG_FILE}: model_input_names: {inputs!r} lacks {_MASK!r}, without which "
            "padding is attended to elsewhere; add it there"
        )
    names = SPECIAL_TOKENS_FILE, CONFIG_FILE
    return named_roles([read_object(folder / name, TokenizerError) for name in names])


def read_model_max_length(folder: Path) -> int | None:
    """Read the longest sequence, in tokens, from tokenizer_config.json; None if it names none.

    Raises:
        TokenizerError: The file exists but is not valid JSON.
    """
    length = read_object(folder / CONFIG_FILE, TokenizerError).get("model_max_length")
    if isinstance(length, bool) or not isinstance(length, int | float) or not length >= 1:
        return None
    return min(int(length), UNLIMITED)


def write_folder(
    folder: Path,
    definition: Mapping[str, Any],
    *,
    special_tokens: Mapping[str, str],
    model_max_length: int,
) -> None:
    """Write tokenizer.json and the two files next to it that transformers reads.

    Args:
        folder: The folder to write to.
        definition: The content of tokenizer.json.
        special_tokens: The token of each role, by transformers' names such as "cls_token".
        model_max_length: The longest sequence, in tokens.

    Raises:
        TokenizerError: The folder cannot be written; files that were there stay whole.
    """
    added = {token["id"]: token for token in definition["added_tokens"]}
    files = {
        TOKENIZER_FILE: definition,
        SPECIAL_TOKENS_FILE: _special_tokens_map(special_tokens, added.values()),
        CONFIG_FILE: {
            "added_tokens_decoder": {
                str(i): {key: value for key, value in token.items() if key != "id"}
                for i, token in added.items()
            },
            # Byte-level decoding is exact; cleaning up would remove spaces from the text.
            "clean_up_tokenization_spaces": False,
            **special_tokens,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": model_max_length,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    }
    with updated_folder(folder, error=TokenizerError) as partial:
        for name, content in files.items():
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (partial / name).write_bytes(text.encode())


def _special_tokens_map(special_tokens: Mapping[str, str], added: Any) -> dict[str, Any]:
    by_content = {token["content"]: token for token in added}
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word")
    return {
        name: {flag: by_content[token][flag] for flag in flags} if token in by_content else token
        for name, token in special_tokens.items()
    }
