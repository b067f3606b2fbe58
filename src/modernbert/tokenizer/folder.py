"""A tokenizer's folder: finding it, the roles of its tokens, and writing what transformers loads.

Published ModernBERTs name the token of a role `[MASK]`, `<mask>` or `<MASK|LLM-jp>`. The files
beside a tokenizer.json say which is which, as they say it to transformers.
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


CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"

UNLIMITED = 10**30
"""What transformers writes as `model_max_length` of a tokenizer that limits nothing."""


def find_folder(folder_or_hub_id: str | Path) -> Path:
    """The local folder itself, or that of the hub's tokenizer files, fetched when need be.

    Raises:
        TokenizerError: a path where no folder is, or a hub id that cannot be fetched.
    """
    folder = hub.find_folder(
        folder_or_hub_id,
        patterns=[TOKENIZER_FILE, CONFIG_FILE, SPECIAL_TOKENS_FILE],  # and not the weights
        content=f"a {TOKENIZER_FILE}",
        error=TokenizerError,
    )
    return tokenizer_folder(folder)


def read_roles(folder: Path) -> dict[str, str]:
    """The token of each role that the files beside a tokenizer.json name.

    Raises:
        TokenizerError: A file is there and is not usable JSON.
    """
    names = SPECIAL_TOKENS_FILE, CONFIG_FILE
    return named_roles([read_object(folder / name, TokenizerError) for name in names])


def read_model_max_length(folder: Path) -> int | None:
    """The longest sequence that tokenizer_config.json names, in tokens; None when it names none.

    Raises:
        TokenizerError: The file is there and is not JSON.
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
    """Write tokenizer.json and the two files beside it that transformers reads.

    special_tokens: transformers' name of each, such as "cls_token", and the token.

    Raises:
        TokenizerError: the folder cannot be written; a file that was there stays whole.
    """
    added = {token["id"]: token for token in definition["added_tokens"]}
    files = {
        TOKENIZER_FILE: definition,
        SPECIAL_TOKENS_FILE: _special_tokens_map(special_tokens, added.values()),
        CONFIG_FILE: {
            "added_tokens_decoder": {str(i): _without_id(token) for i, token in added.items()},
            # Byte-level decoding is exact; cleaning up would take blanks out of the text.
            "clean_up_tokenization_spaces": False,
            **special_tokens,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": model_max_length,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    }
    try:
        with updated_folder(folder) as partial:
            for name, content in files.items():
                text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
                (partial / name).write_bytes(text.encode())
    except OSError as error:
        raise TokenizerError(f"{folder}: cannot be written: {error}") from None


def _special_tokens_map(special_tokens: Mapping[str, str], added: Any) -> dict[str, Any]:
    by_content = {token["content"]: token for token in added}
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word")
    return {
        name: {flag: by_content[token][flag] for flag in flags} if token in by_content else token
        for name, token in special_tokens.items()
    }


def _without_id(token: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in token.items() if key != "id"}
