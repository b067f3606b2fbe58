"""Single values of a config.json, checked for their type."""

from collections.abc import Mapping
from typing import Any

from modernbert.errors import ConfigError


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
