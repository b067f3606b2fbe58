"""The tables of a recipe of several phases: what all have, and what each has of its own.

A key of a phase stands in place of the same key above the phases; tables are merged key by key,
lists and values are replaced whole.

    seed = 1
    batch = { size = 8, parts = 2 }
    [[phases]]                              {name = "a", seed = 1, batch = {size = 8, parts = 2}}
    name = "a"                         ->   {name = "b", seed = 1, batch = {size = 4, parts = 2}}
    [[phases]]
    name = "b"
    batch = { size = 4 }
"""

from collections.abc import Mapping, Sequence
from typing import Any

from modernbert.errors import SettingsError

PhaseTable = dict[str, Any]


def merged(common: Mapping[str, Any], phases: Any, *, where: str) -> list[tuple[str, PhaseTable]]:
    """Each phase's whole table, and how an error names it.

    phases: as TOML gives them, so perhaps not a list of tables at all.

    Raises:
        SettingsError: it is not, or one has no name.
    """
    if not isinstance(phases, list) or not all(isinstance(each, Mapping) for each in phases):
        raise SettingsError(f"{where}: phases: got {phases!r}, expected [[phases]] tables")
    for number, phase in enumerate(phases):
        if "name" not in phase:
            raise SettingsError(f"{where}: phases[{number}]: key 'name' is missing")
    return [(f"{where}: phase {each['name']!r}", merge(common, each)) for each in phases]


def merge(table: Mapping[str, Any], over: Mapping[str, Any]) -> PhaseTable:
    """A table with another laid over it.

    >>> merge({"a": 1, "t": {"x": 1, "y": 2}}, {"t": {"y": 3}, "b": 4})
    {'a': 1, 't': {'x': 1, 'y': 3}, 'b': 4}
    """
    result = dict(table)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merge(below, value)
        result[key] = value
    return result


def parted(tables: Sequence[PhaseTable], own: Sequence[str]) -> tuple[PhaseTable, list[PhaseTable]]:
    """The reverse of `merge`: what all tables have in common, and what is left of each.

    own: keys that stay with each table, whatever they are.

    >>> parted([{"name": "a", "t": {"x": 1, "y": 2}}, {"name": "b", "t": {"x": 1}}], ["name"])
    ({'t': {'x': 1}}, [{'name': 'a', 't': {'y': 2}}, {'name': 'b'}])
    """
    common = _common([{k: v for k, v in each.items() if k not in own} for each in tables])
    return common, [_without(each, common) for each in tables]


def _common(tables: Sequence[PhaseTable]) -> PhaseTable:
    first, *others = tables
    common: PhaseTable = {}
    for key, value in first.items():
        values = [value, *(other.get(key) for other in others)]
        if all(isinstance(each, dict) for each in values):
            if inner := _common(values):
                common[key] = inner
        elif all(each == value for each in values):
            common[key] = value
    return common


def _without(table: PhaseTable, common: PhaseTable) -> PhaseTable:
    rest: PhaseTable = {}
    for key, value in table.items():
        if key not in common:
            rest[key] = value
        elif isinstance(value, dict) and (inner := _without(value, common[key])):
            rest[key] = inner
    return rest
