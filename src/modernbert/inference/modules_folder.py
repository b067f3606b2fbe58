"""Folders as sentence-transformers has them: steps in an order, each with a folder of its own.

modules.json                         the steps: their kinds and their folders
sentence_bert_config.json            lengths, and what else the first step is told
config_sentence_transformers.json    prompts, and how vectors are compared
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from modernbert.errors import ModelFolderError
from modernbert.files import updated_folder

MODULES_FILE = "modules.json"
TRANSFORMER_FILE = "sentence_bert_config.json"
SETTINGS_FILE = "config_sentence_transformers.json"
CONFIG_FILE = "config.json"


class Module(NamedTuple):
    """One step: the last part of its class's name, its folder, and that class."""

    kind: str
    path: str
    type: str


def read_modules(folder: Path) -> list[Module]:
    """The steps of a folder, in their order; none when it is a plain model.

    Raises:
        ModelFolderError: a file that cannot be read, or a step outside the folder.
    """
    path = folder / MODULES_FILE
    entries = read_json(path)
    if entries is None:
        return []
    try:
        found = [(str(entry["type"]), str(entry["path"])) for entry in entries]
    except (KeyError, TypeError):
        raise ModelFolderError(f"{path}: expected a list of steps with type and path") from None
    for _, place in found:
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise ModelFolderError(f"{path}: the path {place!r} leads out of the folder")
    return [Module(name.rpartition(".")[2], place, name) for name, place in found]


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


def read_json(path: Path) -> Any:
    """The content of a JSON file; None when there is no file.

    Raises:
        ModelFolderError: a file that cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path}: not a readable JSON file: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """As `read_json`, of a file that holds an object; empty when there is no file.

    Raises:
        ModelFolderError: a file that cannot be read, or holds something else.
    """
    content = read_json(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path}: expected a JSON object")
    return content
