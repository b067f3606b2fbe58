"""Options made from settings: every documented field has one, and nothing else is offered."""

import keyword
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from annotated_types import Ge, Lt
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from modernbert.cli.options import options_of, settings_of, takes_settings
from modernbert.errors import SettingsError
from modernbert.settings import Doc, Settings

LETTERS = "abcdefgh"
NAMES = st.from_regex(r"[a-z]{2,8}(_[a-z]{2,6})?", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name) and name not in ("help", "no")
)
# Texts that a command line takes as they are: no dash at the start.
WORDS = st.text(LETTERS, min_size=1, max_size=6)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(0, 10**9),
    float: st.floats(0, 1e6).map(lambda number: float(f"{number:.6g}")),
    str: WORDS,
    Path: WORDS.map(Path),
    Literal["one", "two-words"]: st.sampled_from(["one", "two-words"]),
    bool: st.booleans(),
}


@dataclass(frozen=True)
class Drawn:
    """A field of a settings class: its type, its default, and a value to give it."""

    type: Any
    default: Any
    value: Any


@st.composite
def drawn_fields(draw: st.DrawFn) -> Drawn:
    kind = draw(st.sampled_from(list(VALUES)))
    form = draw(st.sampled_from(["plain", "optional", "tuple"] if kind is not bool else ["plain"]))
    values = VALUES[kind]
    if form == "tuple":
        many = st.lists(values, min_size=1, max_size=3).map(tuple)
        return Drawn(tuple[kind, ...], draw(st.just(()) | many), draw(many))
    if form == "optional":
        return Drawn(kind | None, draw(st.none() | values), draw(values))
    default = draw(values)
    return Drawn(kind, default, not default if kind is bool else draw(values))


def settings_class_of(drawn: dict[str, Drawn], **more: Any) -> Any:
    described = [
        (name, Annotated[each.type, Doc(f"Help of {name}.")], field(default=each.default))
        for name, each in drawn.items()
    ]
    return make_dataclass(
        "Drawn", [*described, *more.values()], bases=(Settings,), frozen=True, kw_only=True
    )


def run(settings_class: Any, *arguments: str) -> Any:
    """Call a verb with these settings; what it is called with, or its error's text."""
    received = []

    def verb(settings: Any) -> None:
        received.append(settings)

    verb.__annotations__["settings"] = settings_class
    app = typer.Typer()
    app.command()(takes_settings(verb))
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, SettingsError):
        raise result.exception
    return received[0] if received else result.output


def words_of(name: str, each: Drawn) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if each.type is bool:
        return [flag if each.value else f"--no-{flag[2:]}"]
    many = each.value if isinstance(each.value, tuple) else (each.value,)
    return [word for value in many for word in (flag, str(value))]


@hypothesis_settings(deadline=None, max_examples=60)
@given(st.dictionaries(NAMES, drawn_fields(), min_size=1, max_size=5))
def test_every_option_reaches_its_field(drawn: dict[str, Drawn]) -> None:
    hidden = ("not_offered", int, field(default=3))
    settings_class = settings_class_of(drawn, hidden=hidden)
    assert {option.name for option in options_of(settings_class)} == set(drawn)
    assert run(settings_class) == settings_class()
    arguments = [word for name, each in drawn.items() for word in words_of(name, each)]
    assert run(settings_class, *arguments) == settings_class(
        **{name: each.value for name, each in drawn.items()}
    )
    assert "No such option" in run(settings_class, "--not-offered", "1")


@dataclass(frozen=True, kw_only=True)
class Inner(Settings):
    rate: Annotated[float, Ge(0), Lt(1), Doc("A rate.", flags=("--lr",))] = 0.5


@dataclass(frozen=True, kw_only=True)
class Outer(Settings):
    name: Annotated[str, Doc("A name.", env="OUTER_NAME")]
    size: Annotated[int | None, Ge(1), Doc("A size.", default="by device")] = None
    inner: Inner = Inner()


def test_tables_names_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Outer(name="a", inner=Inner(rate=0.25))
    assert run(Outer, "--name", "a", "--lr", "0.25") == expected
    assert "Missing option '--name'" in run(Outer)
    monkeypatch.setenv("OUTER_NAME", "a")
    assert run(Outer, "--lr", "0.25") == expected


def test_help_shows_text_and_default() -> None:
    shown = " ".join(run(Outer, "--help").replace("│", " ").split())
    assert "A size. [default: (by device)]" in shown
    assert "A rate. [default: 0.5]" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lr", "1"), r"^--lr: got 1\.0, expected 0 or more and below 1$"),
        (("--lr", "nan"), r"^--lr: got nan, expected 0 or more and below 1$"),
        (("--size", "0"), r"^--size: got 0, expected 1 or more$"),
    ],
)
def test_an_error_names_the_option(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        run(Outer, "--name", "a", *arguments)


def test_options_lie_over_a_file() -> None:
    options = options_of(Outer)
    base = {"name": "a", "inner": {"rate": 0.1}}
    assert settings_of(Outer, options, {("size",): 2}, base=base) == Outer(
        name="a", size=2, inner=Inner(rate=0.1)
    )
    assert settings_of(Outer, options, {("inner", "rate"): 0.3}, base=base).inner.rate == 0.3
    assert base == {"name": "a", "inner": {"rate": 0.1}}
    with pytest.raises(SettingsError, match=r"^recipe: inner: rate: got 2\.0, expected"):
        settings_of(Outer, options, {}, base={"name": "a", "inner": {"rate": 2}}, where="recipe")


def test_two_fields_of_one_name() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Twice(Settings):
        rate: Annotated[float, Doc("Another rate.")] = 0.1
        inner: Inner = Inner()

    with pytest.raises(TypeError, match="two fields are called rate"):
        options_of(Twice)


def test_defaults_of_a_verb_stand_in_place_of_the_class() -> None:
    (rate,) = options_of(Inner, Inner(rate=0.75))
    assert rate.default == 0.75
    assert {each.name for each in fields(Inner)} == {"rate"}
