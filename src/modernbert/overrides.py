"""Values that take the place of a recipe's: `key=value` texts, and keyword arguments in Python.

A key is the path of a field in the recipe, such as `training.total_tokens`, or its last name alone
where one field is called so. The values are put into the mapping that the recipe's file is, and the
strict reader of `settings` checks the whole. So there is one set of fields, defaults and ranges,
however a value arrives.
"""

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from modernbert.errors import SettingsError
from modernbert.settings import fields_of, without_none

Place = tuple[str, ...]
ANY = "*"
"""In a place: each item of a list, which a key names by its `name` or its number."""

PHASES = "phases"
"""The list of tables in a recipe whose values stand in place of those above them."""


class Text(str):
    """A value as it was typed, whose meaning the type of the field decides."""


def read_assignments(texts: Iterable[str]) -> dict[str, Text]:
    """Read values by their keys from texts such as `training.total_tokens=1e9`.

    Raises:
        SettingsError: A text has no key, or a key occurs twice.
    """
    found: dict[str, Text] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not (key := key.strip()) or not sign:
            raise SettingsError(f"got {text!r}, expected KEY=VALUE, such as training.seed=1")
        if key in found:
            raise SettingsError(f"{key}: is given twice, as {found[key]!r} and {value!r}")
        found[key] = Text(value.strip())
    return found


def overridden(
    mapping: Mapping[str, Any], values: Mapping[str, Any], *settings_classes: type
) -> dict[str, Any]:
    """Return a copy of a recipe's mapping with other values.

    Args:
        mapping: The recipe, as its file has it.
        values: By key; an empty `Text` removes a key, so that its default counts.
        *settings_classes: The classes whose fields are the keys of the mapping.

    Returns:
        The mapping, which is still to be checked by `settings.parse`.

    Raises:
        SettingsError: No field, or more than one, has a name; a key leads through no table; or a
            value would have no effect, as every phase has its own.
    """
    places = _places(settings_classes)
    result: dict[str, Any] = _copied(mapping)
    for key, value in values.items():
        _put(result, _place(key, places), value, places, key)
    return result


def _copied(value: Any) -> Any:
    """Tables and lists copied, with paths as texts, which every field of a path takes."""
    if isinstance(value, Mapping):
        return {name: _copied(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _places(settings_classes: Iterable[type]) -> dict[Place, tuple[Any, bool]]:
    """The type of every field by its place, and whether it is documented."""
    return {place: found for each in settings_classes for place, found in _walk(each, ())}


def _walk(settings_class: type, above: Place) -> Iterator[tuple[Place, tuple[Any, bool]]]:
    for field in fields_of(settings_class):
        kind, place = without_none(field.type), (*above, field.name)
        yield place, (kind, field.doc is not None)
        items = get_args(kind)[:1] if get_origin(kind) is tuple else ()
        for each, inner in ((kind, place), *((item, (*place, ANY)) for item in items)):
            if _is_table(each):
                yield from _walk(each, inner)


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _place(key: str, places: Mapping[Place, tuple[Any, bool]]) -> Place:
    place = tuple(key.split("."))
    if len(place) > 1 or place in places:
        return place
    found = [each for each in places if each[-1] == key and ANY not in each]
    found = [each for each in found if places[each][1]] or found
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(map(".".join, found))
        raise SettingsError(f"{key}: several settings have this name; expected one of {shown}")
    names = sorted({each[-1] for each in places})
    close = difflib.get_close_matches(key, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; expected one of {', '.join(names)}"
    raise SettingsError(f"unknown key {key!r}{hint}")


def _put(
    result: MutableMapping[str, Any],
    place: Place,
    value: Any,
    places: Mapping[Place, tuple[Any, bool]],
    key: str,
) -> None:
    if isinstance(value, Mapping) and _is_table(places.get(place, (None, False))[0]):
        for name, inner in value.items():
            _put(result, (*place, name), inner, places, f"{key}.{name}")
        return
    table: Any = result
    known: Place = ()
    for number, name in enumerate(place[:-1]):
        table, name = _inner(table, name, ".".join(place[: number + 1]), key)
        known = (*known, name)
    if not isinstance(table, MutableMapping):
        raise SettingsError(f"{key}: leads into {'.'.join(place[:-1])}, which has no keys")
    kind = places.get((*known, place[-1]), (None, False))[0]
    _check_has_effect(result, place)
    if isinstance(value, Text) and not value:
        table.pop(place[-1], None)
    else:
        table[place[-1]] = _meant(kind, value)


def _check_has_effect(result: Mapping[str, Any], place: Place) -> None:
    """Refuse a value above the phases of a recipe where each of them has its own."""
    phases = result.get(PHASES)
    if place[0] == PHASES or not isinstance(phases, list) or not phases:
        return
    tables: list[Any] = phases
    for name in place:
        tables = [each.get(name) if isinstance(each, Mapping) else None for each in tables]
    if all(each is not None for each in tables):
        key = ".".join(place)
        raise SettingsError(
            f"{key}: every phase of the recipe has its own; write phases.NAME.{key}"
        )


def _inner(table: Any, name: str, path: str, key: str) -> tuple[Any, str]:
    """What is in a table, or in a list by name or number, and its part of a place."""
    if isinstance(table, list):
        names = [str(each.get("name", at)) for at, each in enumerate(table)]
        if name in names:
            return table[names.index(name)], ANY
        if name.isdecimal() and int(name) < len(table):
            return table[int(name)], ANY
        raise SettingsError(f"{key}: {path}: is not there, only {', '.join(names)}")
    if not isinstance(table, MutableMapping):
        raise SettingsError(f"{key}: leads through {path}, which has no keys")
    return table.setdefault(name, {}), name


def _meant(kind: Any, value: Any) -> Any:
    """What a value means for a field of some type; the reader judges it."""
    if isinstance(value, Text):
        return _typed(kind, value)
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        value = value.tolist()
    if kind is int and type(value) is float and value.is_integer():
        return int(value)
    if kind is str and isinstance(value, Path):
        return str(value)
    if get_origin(kind) is tuple and isinstance(value, str):
        return [value]
    return value


def _typed(kind: Any, text: str) -> Any:
    """A typed text as a value of some type where it has such a form."""
    if kind in (int, float):
        return _number(kind, text)
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), str(text))
    if kind in (str, Path) or get_origin(kind) is Literal or kind is None:
        is_quoted = re.fullmatch(r"""(["']).*\1""", text)
        return _toml(text) if is_quoted else str(text)
    if get_origin(kind) is tuple and not text.startswith("["):
        return [_typed(get_args(kind)[0], each.strip()) for each in text.split(",")]
    return _toml(text)


def _number(kind: type, text: str) -> Any:
    plain = text.replace("_", "")
    try:
        return int(plain)
    except ValueError:
        pass
    try:
        number = float(plain)
    except ValueError:
        return str(text)
    return int(number) if kind is int and number.is_integer() else number


def _toml(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return str(text)
