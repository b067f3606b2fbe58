"""Options that several verbs share, and options made from the fields of settings."""

import copy
import functools
import inspect
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer

from modernbert.errors import InputError, SettingsError
from modernbert.settings import Doc, fields_of, parse, without_none


def argument(metavar: str, help: str) -> Any:
    """Return an argument of a verb, for which no default is shown."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


Corpus = Annotated[
    list[Path],
    argument(
        "CORPUS",
        "Files and folders: text, Markdown, code, JSON, CSV, TSV, Parquet, Arrow or saved "
        "datasets, plain or compressed as .gz, .xz or .zst.",
    ),
]

Values = Annotated[
    list[str] | None, argument("KEY=VALUE", "Values that take the place of the recipe's.")
]

Revision = Annotated[
    str | None,
    typer.Option(
        metavar="REVISION",
        help="A commit, tag or branch of a model on the hub; the same as NAME@REVISION.",
        show_default=False,
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Write the result to stdout as JSON.")]


def echo_json(value: Any) -> None:
    """Write a value to stdout as one line of JSON."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def example(arguments: str) -> str:
    """Return the last line of a verb's help."""
    return f"Example: `modernbert {arguments}`"


C = TypeVar("C", bound=Callable[..., Any])
S = TypeVar("S")


@dataclass(frozen=True)
class SettingOption:
    """An option for a field of a settings class, or of a table within it.

    Args:
        path: The names of the tables that lead to the field, and its own.
        type: The type of the field, without None.
        default: Its default; `dataclasses.MISSING` where it must be given.
    """

    path: tuple[str, ...]
    type: Any
    doc: Doc
    default: Any

    @property
    def name(self) -> str:
        """The name of the parameter that receives the value."""
        return self.path[-1]

    @property
    def flags(self) -> tuple[str, ...]:
        """Names on the command line; a switch that is on by default can be turned off."""
        if self.doc.flags:
            return self.doc.flags
        flag = "--" + self.name.replace("_", "-")
        return (f"{flag}/--no-{flag[2:]}",) if self.default is True else (flag,)

    @property
    def shows_default(self) -> bool:
        """Whether the default says something."""
        return not any(self.default is nothing for nothing in (MISSING, None, (), False))

    def parameter(self) -> inspect.Parameter:
        """Return the parameter of a command from which typer makes the option."""
        option = typer.Option(
            *self.flags,
            help=self.doc.text,
            envvar=self.doc.env,
            show_default=self.doc.default or self.shows_default,
        )
        many = get_origin(self.type) is tuple
        kind: Any = _list_of(get_args(self.type)[0]) if many else self.type
        default = list(self.default) if many and self.default is not MISSING else self.default
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if default is MISSING else default,
            annotation=Annotated[kind | None if default is None else kind, option],
        )


def _list_of(item: Any) -> Any:
    """The type of an option that may be repeated; typer has none for a list of literals."""
    return list[str] if get_origin(item) is Literal else list[item]


def options_of(settings_class: type, defaults: Any = None) -> list[SettingOption]:
    """List the options for all documented fields, including those of inner tables.

    Args:
        settings_class: The settings class.
        defaults: A settings object whose values replace the defaults of the class.

    Returns:
        One option for each documented field, in the order of the fields.

    Raises:
        TypeError: Two fields would have the same option.
    """
    found = list(_walk(settings_class, (), defaults))
    names = [option.name for option in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise TypeError(f"{settings_class.__name__}: two fields are called {min(twice)}")
    return found


def _walk(settings_class: type, place: tuple[str, ...], defaults: Any) -> Iterator[SettingOption]:
    for field in fields_of(settings_class):
        kind, path = without_none(field.type), (*place, field.name)
        default = field.default if defaults is None else getattr(defaults, field.name)
        if is_dataclass(kind):
            assert isinstance(kind, type)
            yield from _walk(kind, path, None if default is MISSING else default)
        elif field.doc is not None:
            yield SettingOption(path, kind, field.doc, default)


def takes_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each field of the settings that it takes.

    A parameter whose type is a settings class is replaced by the options of its fields; the command
    is called with the settings object. A default of the parameter holds the defaults to show.
    """
    signature = inspect.signature(command, eval_str=True)
    taken = {
        name: options_of(each.annotation, None if each.default is each.empty else each.default)
        for name, each in signature.parameters.items()
        if isinstance(each.annotation, type) and is_dataclass(each.annotation)
    }
    parameters = [
        shown
        for name, each in signature.parameters.items()
        for shown in ([option.parameter() for option in taken[name]] if name in taken else [each])
    ]

    @functools.wraps(command)
    def call(**values: Any) -> Any:
        for name, options in taken.items():
            given = {option.path: values.pop(option.name) for option in options}
            values[name] = settings_of(signature.parameters[name].annotation, options, given)
        return command(**values)

    return _with_parameters(call, parameters)


def refuse_unused(settings: Any, used: Collection[str], what: str) -> None:
    """Refuse options that were given a value and have no effect.

    Args:
        settings: The settings object that the options became.
        used: The names of the fields that have an effect.
        what: Where the others have none, such as "a suite".

    Raises:
        InputError: An option has no effect; the message names it.
    """
    for option in options_of(type(settings)):
        if option.name not in used and getattr(settings, option.name) != option.default:
            raise InputError(f"{option.flags[0].split('/')[0]}: has no effect on {what}")


def takes_revision(command: Callable[..., Any], name: str = "model") -> Callable[..., Any]:
    """Give a command `--revision`, which pins the model on the hub that a parameter names.

    Args:
        command: The command.
        name: The parameter, which holds a folder or a hub id; or several.
    """
    option = inspect.Parameter(
        "revision", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Revision
    )

    @functools.wraps(command)
    def call(*, revision: str | None = None, **values: Any) -> Any:
        if revision is not None:
            values[name] = _pinned(values[name], revision)
        return command(**values)

    signature = inspect.signature(command, eval_str=True)
    return _with_parameters(call, [*signature.parameters.values(), option])


def _pinned(named: str | list[str] | None, revision: str) -> Any:
    from modernbert.hub import at_revision

    if isinstance(named, list):
        if len(named) != 1:
            raise SettingsError("--revision: is for one model; of several write ID@REVISION each")
        serving_name, separator, model = named[0].rpartition("=")
        return [f"{serving_name}{separator}{at_revision(model, revision)}"]
    if named is None:
        raise SettingsError("--revision: needs --model, a hub id")
    return at_revision(named, revision)


def _with_parameters(command: C, parameters: list[inspect.Parameter]) -> C:
    """Let a function that takes keywords show these parameters to typer."""
    keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    command.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in keywords}
    return command


def settings_of(
    settings_class: type[S],
    options: list[SettingOption],
    values: Mapping[tuple[str, ...], Any],
    *,
    base: Mapping[str, Any] | None = None,
    where: str = "options",
) -> S:
    """Make a settings object from the values of options.

    Args:
        settings_class: The settings class.
        options: Its options, as `options_of` lists them.
        values: The value of each option by its path; None stands for an option that is not given.
        base: The content of a recipe file; values of options take precedence over it.
        where: The name of that file, for messages about it.

    Returns:
        The settings object.

    Raises:
        SettingsError: A value is missing or out of its range; the message names the option.
    """
    mapping: dict[str, Any] = copy.deepcopy(dict(base or {}))
    for path, value in values.items():
        table = mapping
        for name in path[:-1]:
            table = table.setdefault(name, {})
        if value is not None:
            table[path[-1]] = value
    try:
        return parse(settings_class, mapping, where=where)
    except SettingsError as error:
        raise SettingsError(_with_flag(str(error), options, values, where)) from None


def _with_flag(
    message: str, options: list[SettingOption], values: Mapping[tuple[str, ...], Any], where: str
) -> str:
    """A message about a field as one about the option that the value came from."""
    for option in options:
        start = ": ".join((where, *option.path)) + ": "
        if option.path in values and message.startswith(start):
            flag = option.flags[0].split("/")[0]
            return f"{flag}: {message.removeprefix(start)}"
    return message.removeprefix("options: ")
