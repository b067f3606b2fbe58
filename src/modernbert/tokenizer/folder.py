"""A tokenizer's folder: finding it, here or on the hub, and writing what transformers loads."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modernbert import hub
from modernbert.errors import TokenizerError
from modernbert.files import updated_folder
from modernbert.json_files import read_object
from modernbert.kinds import TOKENIZER_FILE, tokenizer_folder
from modernbert.tokenizer.roles import named_roles

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
