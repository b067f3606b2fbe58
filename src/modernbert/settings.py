"""Frozen dataclasses of settings, read strictly from TOML and written back.

A settings class is a frozen, keyword-only dataclass that stands beside the component it sets. Its
fields may be `bool`, `int`, `float`, `str`, `Path`, a `Literal` of strings, a `tuple[X, ...]` of
any of these or of settings, another settings class, or `X | None`. An unknown key, a missing key
or a wrong type is a `SettingsError` that names the key, what was got and what was expected.

A class whose file looks otherwise than its fields has two methods that turn one into the other:
`unfold(mapping, where)`, a class method, gives the mapping of the fields, in which settings objects
may stand that are ready; `fold(mapping)` gives the mapping of the file.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import tomli_w

from modernbert.errors import SettingsError

T = TypeVar("T")


def load(settings_class: type[T], path: Path | str) -> T:
    """Read one settings class from a TOML file.

    Raises:
        SettingsError: the file is missing, is no TOML, or does not fit the class.
    """
    return parse(settings_class, load_mapping(path), where=str(path))


def load_mapping(path: Path | str) -> dict[str, Any]:
    """The content of a TOML file, not yet checked against a class.

    Raises:
        SettingsError: the file is missing or is no TOML.
    """
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: not a readable TOML file: {error}") from None


def parse(settings_class: type[T], mapping: Mapping[str, Any], *, where: str) -> T:
    """Make a settings object from a mapping; `where` begins every error message."""
    if (unfold := getattr(settings_class, "unfold", None)) is not None:
        mapping = unfold(mapping, where)
    hints = typing.get_type_hints(settings_class)
    fields = {field.name: field for field in dataclasses.fields(settings_class)}  # type: ignore[arg-type]
    check_keys(mapping, fields, where=where)
    values = {
        key: _convert(hints[key], value, where=f"{where}: {key}") for key, value in mapping.items()
    }
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise SettingsError(f"{where}: key {name!r} is missing")
    try:
        return settings_class(**values)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None


def check_keys(mapping: Mapping[str, Any], known: Iterable[str], *, where: str) -> None:
    """Refuse a key that is none of the known ones, and name the nearest.

    Raises:
        SettingsError: there is one.
    """
    known = list(known)
    for key in mapping:
        if key not in known:
            raise SettingsError(f"{where}: unknown key {key!r}{_nearest(key, known)}")


def to_mapping(settings: Any) -> dict[str, Any]:
    """Plain dictionaries and lists of a settings object; fields that are None are left out."""
    mapping = {
        field.name: _plain(value)
        for field in dataclasses.fields(settings)
        if (value := getattr(settings, field.name)) is not None
    }
    folded: dict[str, Any] = settings.fold(mapping) if hasattr(settings, "fold") else mapping
    return folded


def to_toml(settings: Any) -> str:
    """The settings as TOML text that `load` reads back to an equal object."""
    return tomli_w.dumps(to_mapping(settings))


def _nearest(key: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(key, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known keys are {', '.join(names)}"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        return _convert(inner, value, where=where)
    if origin is Literal:
        if value in arguments:
            return value
        raise SettingsError(f"{where}: got {value!r}, expected one of {_list(arguments)}")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise SettingsError(f"{where}: got {value!r}, expected a list")
        return tuple(
            _convert(arguments[0], item, where=f"{where}[{i}]") for i, item in enumerate(value)
        )
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type[Any], hint)):
            return value
        if not isinstance(value, Mapping):
            raise SettingsError(f"{where}: got {value!r}, expected a table of keys")
        return parse(typing.cast(type[Any], hint), value, where=where)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint:
        return value
    raise SettingsError(f"{where}: got {value!r}, expected {_KINDS.get(hint, hint)}")


_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    Path: "a path in quotes",
}


def _list(items: tuple[Any, ...]) -> str:
    return ", ".join(repr(item) for item in items)
