"""Frozen dataclasses of settings, read strictly from TOML and written back.

A settings class is a frozen, keyword-only dataclass that stands beside the component it configures.
Each field says in its type what it accepts and what it is for:

    @dataclass(frozen=True, kw_only=True)
    class PackingSettings(Settings):
        max_seqlen: Annotated[int, Ge(3), Doc("The longest sequence, in tokens.")] = 1024

`Settings` checks the ranges when an object is made. The `Doc` is the only place of the help text:
the command line makes its options from it, and the tables of docs/recipes.md come from it.

Fields may be `bool`, `int`, `float`, `str`, `Path`, a `Literal` of strings, a `tuple[X, ...]` or a
`Mapping[str, X]` of any of these or of settings, another settings class, or `X | None`. An unknown
key, a missing key, a wrong type or a value out of range is a `SettingsError` that names the key,
the value and what was expected.

A class whose file looks different from its fields has two methods: `unfold(mapping, where)`, a
class method, turns the mapping of the file into that of the fields, in which settings objects may
stand ready-made; `fold(mapping)` does the reverse.
"""

import dataclasses
import difflib
import functools
import math
import operator
import tomllib
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

import tomli_w
from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt, MinLen

from modernbert.errors import SettingsError
from modernbert.reading import read_regular

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Doc:
    """What a field of a settings class means, for documents and for the command line.

    Args:
        text: A sentence that describes the field.
        default: Words for the default where its value says little, such as "by device" for None.
        flags: Names of the option, if not the field's own with dashes, such as "--output", "-o".
        env: An environment variable from which the option is read where it is not given.
    """

    text: str
    default: str | None = None
    flags: tuple[str, ...] = ()
    env: str | None = None


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a settings class.

    Args:
        type: Its type without metadata.
        doc: Its description; None where it has none, as tables of other settings do.
        default: Its default; `dataclasses.MISSING` where it must be given.
    """

    name: str
    type: Any
    doc: Doc | None
    default: Any


class Settings:
    """Base of settings classes: the ranges in the fields' types are checked on construction.

    A subclass that checks more overrides `__post_init__` and calls that of `super()` first.

    Raises:
        SettingsError: A number is out of its range or not finite, or a text or tuple is empty that
            must not be.
    """

    def __post_init__(self) -> None:
        for name, annotation in _annotations(typing.cast(Hashable, type(self))).items():
            _check(annotation, getattr(self, name), name)


@functools.cache
def _annotations(settings_class: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(settings_class, include_extras=True)


def _check(annotation: Any, value: Any, name: str) -> None:
    """Check a value against the ranges in a type, wherever in it they stand."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if value is None:
        return
    if origin is Annotated:
        _check_bounds(arguments[1:], value, name)
        _check(arguments[0], value, name)
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            _check(argument, value, name)
    elif origin is tuple:
        for index, item in enumerate(value):
            _check(arguments[0], item, f"{name}[{index}]")
    elif annotation is str and not _is_unicode(value):
        raise SettingsError(f"{name}: got bytes that are no UTF-8, expected a text")
    elif annotation is float and not math.isfinite(value):
        raise SettingsError(f"{name}: got {value}, expected a finite number")


def _is_unicode(text: str) -> bool:
    """Whether a text has a UTF-8 form; one of the environment may be of other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# How the number of a bound is named in it, when the bound holds, and how a message tells it.
_BOUNDS: dict[type, tuple[str, Callable[[Any, Any], bool], str]] = {
    Ge: ("ge", operator.ge, "{} or more"),
    Gt: ("gt", operator.gt, "above {}"),
    Le: ("le", operator.le, "at most {}"),
    Lt: ("lt", operator.lt, "below {}"),
    MinLen: ("min_length", lambda value, least: len(value) >= least, "a length of {} or more"),
}


def _check_bounds(metadata: Iterable[Any], value: Any, name: str) -> None:
    """Check a value against the bounds among some metadata; an `Interval` holds several."""
    holds, told = True, []
    for each in metadata:
        for bound in each if isinstance(each, GroupedMetadata) else (each,):
            if type(bound) in _BOUNDS:
                attribute, compare, words = _BOUNDS[type(bound)]
                limit = getattr(bound, attribute)
                holds = holds and compare(value, limit)
                told.append(words.format(limit))
    if not holds:
        raise SettingsError(f"{name}: got {value!r}, expected {' and '.join(told)}")


def fields_of(settings_class: type) -> list[Field]:
    """Return the fields of a settings class in their order, with their descriptions."""
    plain = typing.get_type_hints(settings_class)
    found = []
    for field in dataclasses.fields(settings_class):
        metadata = getattr(_annotations(settings_class)[field.name], "__metadata__", ())
        doc = next((each for each in metadata if isinstance(each, Doc)), None)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found.append(Field(name=field.name, type=plain[field.name], doc=doc, default=default))
    return found


def without_none(hint: Any) -> Any:
    """Return the type `X` of `X | None`, and any other type as it is."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        (hint,) = (each for each in typing.get_args(hint) if each is not types.NoneType)
    return hint


def load(settings_class: type[T], path: Path | str) -> T:
    """Read one settings class from a TOML file.

    Raises:
        SettingsError: The file is missing, is not TOML, or does not fit the class.
    """
    return parse(settings_class, load_mapping(path), where=str(path))


def load_mapping(path: Path | str) -> dict[str, Any]:
    """Read a TOML file without checking it against a class.

    Raises:
        SettingsError: The file is missing or is not TOML.
    """
    path = Path(path)
    try:
        return tomllib.loads(read_regular(path).decode())
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise SettingsError(
            f"{path}: is a folder; expected a recipe, such as recipe.toml"
        ) from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        remedy = "" if path.suffix == ".toml" else "; expected a recipe, such as recipe.toml"
        raise SettingsError(f"{path}: not a readable TOML file: {error}{remedy}") from None


def parse(settings_class: type[T], mapping: Mapping[str, Any], *, where: str) -> T:
    """Make a settings object from a mapping.

    Args:
        settings_class: The settings class, a dataclass.
        mapping: Values by the names of its fields, with a mapping for each inner table.
        where: The beginning of every error message, such as the file's name.

    Returns:
        The settings object.

    Raises:
        SettingsError: The mapping does not fit the class.
    """
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
            values[name] = _absent(hints[name], name, where=where)
    try:
        return settings_class(**values)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None


def _absent(hint: Any, name: str, *, where: str) -> Any:
    """The value of a required key that is not there: a table may be empty if its keys allow it."""
    if dataclasses.is_dataclass(hint):
        return _convert(hint, {}, where=f"{where}: {name}")
    raise SettingsError(f"{where}: key {name!r} is missing")


def check_keys(mapping: Mapping[str, Any], known: Iterable[str], *, where: str) -> None:
    """Refuse unknown keys, naming the nearest known one.

    Raises:
        SettingsError: A key is not among the known ones.
    """
    known = list(known)
    for key in mapping:
        if key not in known:
            raise SettingsError(f"{where}: unknown key {key!r}{_nearest(key, known)}")


def to_mapping(settings: Any) -> dict[str, Any]:
    """Turn settings into plain dictionaries and lists, without the fields that are None."""
    mapping = {
        field.name: _plain(value)
        for field in dataclasses.fields(settings)
        if (value := getattr(settings, field.name)) is not None
    }
    folded: dict[str, Any] = settings.fold(mapping) if hasattr(settings, "fold") else mapping
    return folded


def to_toml(settings: Any) -> str:
    """Return the settings as TOML text that `load` reads back to an equal object."""
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
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert(without_none(hint), value, where=where)
    if origin is Literal:
        if value in arguments:
            return value
        raise SettingsError(
            f"{where}: got {value!r}, expected one of {', '.join(map(repr, arguments))}"
        )
    if origin in (tuple, list):
        if not isinstance(value, list | tuple):
            raise SettingsError(f"{where}: got {value!r}, expected a list")
        return origin(
            _convert(arguments[0], item, where=f"{where}[{i}]") for i, item in enumerate(value)
        )
    if origin in (Mapping, dict):
        if not isinstance(value, Mapping):
            raise SettingsError(f"{where}: got {value!r}, expected a table of keys")
        return {
            key: _convert(arguments[1], item, where=f"{where}.{key}") for key, item in value.items()
        }
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type[Any], hint)):
            return value
        if not isinstance(value, Mapping):
            raise SettingsError(f"{where}: got {value!r}, expected a table of keys")
        return parse(typing.cast(type[Any], hint), value, where=where)
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is float and type(value) is int and abs(value) < _MAX_WHOLE:
        return float(value)
    if type(value) is hint:
        return value
    raise SettingsError(f"{where}: got {value!r}, expected {_KINDS.get(hint, hint)}")


_MAX_WHOLE = 1 << 1000  # larger ones have no float
_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    Path: "a path in quotes",
}


Pooling = Literal["cls", "mean"]
SparsePooling = Literal["max", "sum"]
TrainingPrecision = Literal["auto", "float32", "bfloat16", "float8"]
TuningPrecision = Literal["auto", "float32", "bfloat16"]
PretrainingObjective = Literal["masked", "causal"]
OptimizerName = Literal["stable-adamw", "adamw", "muon"]
