"""Settings: TOML in and out without loss, and a clear word about every mistake."""

import math
import re
import string
import tomllib
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Interval, MinLen
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from modernbert.errors import SettingsError
from modernbert.settings import Doc, Settings, fields_of, load, parse, to_mapping, to_toml


@dataclass(frozen=True, kw_only=True)
class Source:
    folder: Path
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    learning_rate: float = 8e-4
    betas: tuple[float, ...] = (0.9, 0.98)

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise SettingsError(f"learning_rate: got {self.learning_rate}, expected above 0")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    name: str
    steps: int = 10
    precision: Literal["float32", "bfloat16"] = "float32"
    resume: bool = True
    held_out: Path | None = None
    sources: tuple[Source, ...] = ()
    optimizer: Optimizer = field(default_factory=Optimizer)


@dataclass(frozen=True, kw_only=True)
class Run:
    optimizer: Optimizer
    source: Source


# TOML has no lone surrogates; a path has no NUL and keeps no trailing or doubled slash.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PATHS = st.text(string.ascii_letters + "äß .-_", min_size=1, max_size=12).map(Path)
FLOATS = st.floats(allow_nan=False)
SOURCES = st.builds(Source, folder=PATHS, weight=FLOATS)
RECIPES = st.builds(
    Recipe,
    name=TEXTS,
    steps=st.integers(-(2**63), 2**63 - 1),
    precision=st.sampled_from(["float32", "bfloat16"]),
    resume=st.booleans(),
    held_out=st.none() | PATHS,
    sources=st.lists(SOURCES, max_size=3).map(tuple),
    optimizer=st.builds(
        Optimizer,
        learning_rate=st.floats(min_value=1e-300, max_value=1e300),
        betas=st.lists(FLOATS, max_size=3).map(tuple),
    ),
)


@hypothesis_settings(deadline=None)
@given(RECIPES)
def test_toml_brings_back_an_equal_object(recipe: Recipe) -> None:
    assert parse(Recipe, tomllib.loads(to_toml(recipe)), where="recipe") == recipe


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('name = "a"\n[optimizer]\nlearning_rate = 1\n[[sources]]\nfolder = "x/y"\n')
    recipe = load(Recipe, file)
    assert recipe == Recipe(
        name="a", optimizer=Optimizer(learning_rate=1.0), sources=(Source(folder=Path("x/y")),)
    )
    assert isinstance(recipe.optimizer.learning_rate, float)


def test_what_is_none_is_left_out() -> None:
    assert "held_out" not in to_mapping(Recipe(name="a"))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"name": "a", "stebs": 5}, "recipe: unknown key 'stebs'; did you mean 'steps'?"),
        ({"name": "a", "zzz": 5}, "recipe: unknown key 'zzz'; known keys are held_out, name, "),
        ({}, "recipe: key 'name' is missing"),
        ({"name": 1}, "recipe: name: got 1, expected a text in quotes"),
        ({"name": "a", "steps": "5"}, "recipe: steps: got '5', expected a whole number"),
        ({"name": "a", "steps": 5.0}, "recipe: steps: got 5.0, expected a whole number"),
        ({"name": "a", "steps": True}, "recipe: steps: got True, expected a whole number"),
        ({"name": "a", "resume": 1}, "recipe: resume: got 1, expected true or false"),
        ({"name": "a", "precision": "fp8"}, "got 'fp8', expected one of 'float32', 'bfloat16'"),
        ({"name": "a", "held_out": 3}, "recipe: held_out: got 3, expected a path in quotes"),
        ({"name": "a", "sources": "x"}, "recipe: sources: got 'x', expected a list"),
        ({"name": "a", "sources": [{}]}, "recipe: sources[0]: key 'folder' is missing"),
        ({"name": "a", "optimizer": 3}, "recipe: optimizer: got 3, expected a table of keys"),
        (
            {"name": "a", "optimizer": {"betas": [0.9, "b"]}},
            "recipe: optimizer: betas[1]: got 'b', expected a number",
        ),
        (
            {"name": "a", "optimizer": {"learning_rate": -1}},
            "recipe: optimizer: learning_rate: got -1.0, expected above 0",
        ),
    ],
)
def test_every_mistake_is_named(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(Recipe, mapping, where="recipe")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_a_table_that_is_missing_the_keys_without_a_default_are() -> None:
    with pytest.raises(SettingsError, match=r"^run: source: key 'folder' is missing$"):
        parse(Run, {}, where="run")
    run = parse(Run, {"source": {"folder": "x"}}, where="run")
    assert run.optimizer == Optimizer()


@hypothesis_settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["name", "steps", "sources", "optimizer", "held_out", "else"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | FLOATS | TEXTS,
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
            max_leaves=5,
        ),
    )
)
def test_whatever_comes_it_is_parsed_or_refused(mapping: dict[str, Any]) -> None:
    try:
        recipe = parse(Recipe, mapping, where="recipe")
    except SettingsError as error:
        assert str(error).startswith("recipe")
    else:
        assert isinstance(recipe, Recipe)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"recipe\.toml: no such file"):
        load(Recipe, tmp_path / "recipe.toml")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"name = 'a'\nname = 'b'\n"])
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "recipe.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match="not a readable TOML file"):
        load(Recipe, file)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is a folder; expected a recipe"):
        load(Recipe, tmp_path)


@dataclass(frozen=True, kw_only=True)
class Ranges(Settings):
    count: Annotated[int, Ge(1)] = 1
    share: Annotated[float | None, Interval(gt=0, le=1)] = None
    names: Annotated[tuple[str, ...], MinLen(1)] = ("a",)
    sizes: tuple[Annotated[int, Ge(2)], ...] = ()
    free: float = 0.0


@given(
    st.integers(-3, 3),
    st.none() | st.floats(),
    st.lists(TEXTS, max_size=2).map(tuple),
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
    st.floats(),
)
def test_ranges_hold(
    count: int, share: float | None, names: Any, sizes: tuple[int, ...], free: float
) -> None:
    fits = (
        count >= 1
        and (share is None or 0 < share <= 1)
        and len(names) >= 1
        and all(size >= 2 for size in sizes)
        and math.isfinite(free)
    )
    try:
        Ranges(count=count, share=share, names=names, sizes=sizes, free=free)
    except SettingsError as error:
        assert not fits
        assert re.match(r"(count|share|names|sizes\[\d\]|free): got .*, expected ", str(error))
    else:
        assert fits


def test_fields_have_their_descriptions() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Described(Settings):
        size: Annotated[int | None, Ge(1), Doc("A size.", default="by device")] = None
        names: tuple[str, ...] = field(default_factory=tuple)
        needed: str

    size, names, needed = fields_of(Described)
    assert (size.name, size.type, size.default) == ("size", int | None, None)
    assert size.doc == Doc("A size.", default="by device")
    assert (names.doc, names.default) == (None, ())
    assert needed.default is MISSING
