"""`modernbert info`: what a path holds."""

from pathlib import Path
from typing import Annotated

import typer

from modernbert.cli.formatting import lines
from modernbert.cli.options import AsJson, echo_json


def info(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="Folder of a model, a tokenizer, token shards or a run; or a recipe.toml.",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Tell what a model, a recipe, token shards, a tokenizer or a run is like."""
    from modernbert.cli.descriptions import describe

    description = describe(path)
    if as_json:
        echo_json(description)
    else:
        typer.echo("\n".join(lines(description)))
