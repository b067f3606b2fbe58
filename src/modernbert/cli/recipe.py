"""`modernbert recipe`: the recipes that come with the package."""

import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from modernbert.cli.options import argument, example
from modernbert.errors import InputError, SettingsError
from modernbert.files import write_whole

RECIPES = Path(str(files("modernbert") / "recipes"))

app = typer.Typer(
    help="List, show and copy the recipes that come with the package.",
    epilog=example("recipe list"),
    no_args_is_help=True,
)

Name = Annotated[str, argument("NAME", "The name of a recipe.")]


def find_recipe(given: Path) -> Path:
    """Return the file of a recipe: the one that is named, or the one of this name in the package.

    Raises:
        SettingsError: There is neither.
    """
    if given.exists() or given.suffix or len(given.parts) > 1:
        return given
    names = [path.stem for path in recipe_files()]
    if given.name not in names:
        raise SettingsError(
            f"{given}: no such file, and no recipe of this name; expected a file or one of "
            f"{', '.join(names)}"
        )
    return RECIPES / f"{given.name}.toml"


def recipe_files() -> list[Path]:
    """Return the recipes of the package, by name."""
    return sorted(RECIPES.glob("*.toml"))


@app.command("list", epilog=example("recipe list"))
def list_recipes() -> None:
    """List the recipes, each with what it is for."""
    for path in recipe_files():
        typer.echo(f"{path.stem:<11}{_purpose(path)}")


@app.command(epilog=example("recipe show base"))
def show(name: Name) -> None:
    """Print a recipe."""
    sys.stdout.write(_named(name).read_text(encoding="utf-8"))


@app.command(epilog=example("recipe copy start"))
def copy(
    name: Name,
    output: Annotated[
        Path | None,
        typer.Argument(metavar="[OUT.toml]", help="The file to write.", show_default="NAME.toml"),
    ] = None,
) -> None:
    """Copy a recipe into a file, to edit it."""
    source = _named(name)
    place = output or Path(source.name)
    if place.exists():
        raise InputError(f"{place}: already exists; delete it or choose another name")
    write_whole(place, source.read_bytes())
    typer.echo(place)


def _named(name: str) -> Path:
    names = [path.stem for path in recipe_files()]
    if name not in names:
        raise InputError(f"{name}: no such recipe; expected one of {', '.join(names)}")
    return RECIPES / f"{name}.toml"


def _purpose(path: Path) -> str:
    """The first sentence of a recipe's comment."""
    lines = path.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in lines)
    return comment.partition(". ")[0].partition(": ")[0].removesuffix(".")
