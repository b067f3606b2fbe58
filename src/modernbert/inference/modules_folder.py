"""Folders as sentence-transformers has them: steps in an order, each with a folder of its own.

modules.json                         the steps: their kinds and their folders
sentence_bert_config.json            lengths, and what else the first step is told
config_sentence_transformers.json    prompts, and how vectors are compared
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modernbert.errors import ModelFolderError
from modernbert.files import updated_folder
from modernbert.kinds import MODULES_FILE, Module


def refuse_steps(folder: Path, modules: Sequence[Module], supported: str) -> ModelFolderError:
    """The error about steps that cannot be used, for the caller to raise."""
    kinds = ", ".join(each.kind for each in modules) or "of a plain model"
    return ModelFolderError(
        f"{folder / MODULES_FILE}: the steps {kinds} are not supported; {supported}"
    )


def write_files(folder: Path, modules: Sequence[Module], files: Mapping[str, Any]) -> None:
    """Write modules.json, the folders of the steps, and other files by their paths.

    files: JSON values.

    Raises:
        ModelFolderError: the folder cannot be written.
    """
    listed = [
        {"idx": index, "name": str(index), "path": each.path, "type": each.type}
        for index, each in enumerate(modules)
    ]
    try:
        with updated_folder(folder) as partial:
            for each in modules:
                (partial / each.path).mkdir(exist_ok=True)
            for name, content in {MODULES_FILE: listed, **files}.items():
                text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
                (partial / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ModelFolderError(f"{folder}: cannot be written: {error}") from None
