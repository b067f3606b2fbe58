"""JSON files that another program wrote, read as strictly as recipes.

A file is described by a settings class (see `settings`): every key that is honoured is a field, and
a key of which only one value is honoured is a `Literal`. Any other key is refused by its name,
unless `IGNORED` says why it does not matter. A key whose value is null counts as absent.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from modernbert.errors import ConfigError, ModelFolderError, ModernBertError, SettingsError
from modernbert.reading import POINTER_REMEDY, is_pointer, read_regular
from modernbert.settings import parse

T = TypeVar("T")

IGNORED: Mapping[str, Mapping[str, str]] = {
    "config_sentence_transformers.json": {
        "model_type": "says which class loads the folder; `kinds` reads it",
        "requirements": "versions of libraries that are not used here",
        "keep_in_fp32_modules": "layers after the encoder are always computed in float32",
        "tokenizer_name": "the tokenizer is the one of the folder",
    },
    "sentence_bert_config.json": {
        "modality_config": "the only modality here is text",
        "unpad_inputs": "nothing is ever padded here",
    },
    "modules.json": {
        "idx": "the order of the list is that of the steps",
        "name": "steps are known by their classes",
        "kwargs": "which arguments of a call a step is handed",
    },
}
"""Keys that are passed over on purpose, by file, each with the reason. So are those that begin with
an underscore, which are notes such as `__version__` and `_name_or_path`."""


_LOG_COUNTS = ("step", "evaluated_step", "num_processes")
_LOG_NUMBERS = (*_LOG_COUNTS, "tokens", "total_tokens", "seconds")
_LOG_TYPES = {"about": dict, "phases": list, "phase": str | None, "status": str}


def read_json(path: Path, error: type[ModernBertError] = ModelFolderError) -> Any:
    """Read the content of a JSON file.

    Args:
        path: A file that may be a stranger's.
        error: The class to raise.

    Returns:
        The content, or None where there is no file.

    Raises:
        error: The file cannot be read, is not a regular file, or is no JSON.
    """
    try:
        content = read_regular(path)
        if is_pointer(content):
            raise error(f"{path}: {POINTER_REMEDY}")
        return json.loads(content.decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as failure:
        raise error(f"{path}: cannot be read: {failure.strerror}") from None
    except (ValueError, RecursionError) as failure:
        raise error(f"{path}: not a readable JSON file: {failure}") from None


def read_object(path: Path, error: type[ModernBertError] = ModelFolderError) -> dict[str, Any]:
    """Read a JSON file that holds an object; see `read_json`.

    Args:
        path: A file that may be a stranger's.
        error: As `read_json`, or the file holds something else.

    Returns:
         Its content; empty where there is no file.
    """
    content = read_json(path, error)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise error(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def read_settings(
    settings_class: type[T],
    path: Path,
    *,
    error: type[ModernBertError] = ModelFolderError,
) -> T:
    """Read a JSON file into a settings class; keys of `IGNORED` are passed over.

    Args:
        settings_class: A frozen dataclass with a field for each key that is honoured.
        path: The file; where there is none, all fields have their defaults.
        error: The class to raise.

    Raises:
        error: As `read_object`; or a key that is not honoured, has a wrong type or is missing.
    """
    content = read_object(path, error)
    return parse_foreign(settings_class, content, str(path), error=error)


def parse_foreign(
    settings_class: type[T],
    content: Mapping[str, Any],
    where: str,
    *,
    error: type[ModernBertError] = ModelFolderError,
) -> T:
    """Make a settings object of what stands in somebody else's file; see `read_settings`."""
    passed_over = IGNORED.get(Path(where).name, ())
    known = {
        key: _without_nulls(value)
        for key, value in content.items()
        if value is not None and key not in passed_over and not key.startswith("_")
    }
    try:
        return parse(settings_class, known, where=where)
    except SettingsError as failure:
        raise error(str(failure)) from None


def _without_nulls(value: Any) -> Any:
    """A value, without the keys within it that are null."""
    if not isinstance(value, dict):
        return value
    return {key: _without_nulls(each) for key, each in value.items() if each is not None}


def log_row(line: bytes | str) -> dict[str, Any] | None:
    """Return a row of a run's log, without the values of its known keys that are of other types.

    Args:
        line: A line of metrics.jsonl, of which a kill may have cut off the end.

    Returns:
        The row; None for a line that holds none.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("kind"), str):
        return None
    return {key: value for key, value in row.items() if _fits_log(key, value)}


def _fits_log(key: str, value: Any) -> bool:
    if key in _LOG_NUMBERS:
        whole = int if key in _LOG_COUNTS else (int, float)
        least = -1 if key == "evaluated_step" else 0  # before the first evaluation
        return isinstance(value, whole) and value is not True and least <= value < 1 << 63
    return _is_shallow(value) and isinstance(value, _LOG_TYPES.get(key, object))


def _is_shallow(value: Any, levels: int = 8) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    if not isinstance(inner, Iterable) or isinstance(value, str):
        return True
    return levels > 0 and all(_is_shallow(each, levels - 1) for each in inner)


def check_same(name: str, value: float, other_name: str, other: object) -> None:
    """Refuse two entries that should say the same; an absent one says nothing."""
    if other is not None and other != value:
        raise ConfigError(f"{name} is {value}, but {other_name} is {other}")


def flag(published: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = published.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ConfigError(f"{key}: got {value!r}, expected true or false")
    return value


def integer(published: Mapping[str, Any], key: str, default: int) -> int:
    value = published.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{key}: got {value!r}, expected a whole number")
    return value


def number(published: Mapping[str, Any], key: str, default: float) -> float:
    value = published.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        raise ConfigError(f"{key}: got {value!r}, expected a number")
    return float(value)
