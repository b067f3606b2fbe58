"""`modernbert info`: what a path holds, and what this machine computes with."""

from pathlib import Path
from typing import Annotated, Any

import typer

from modernbert.cli.formatting import lines
from modernbert.cli.options import AsJson, echo_json


def info(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            help="Folder of a model, a tokenizer, token shards or a run; or a recipe.toml.",
            show_default=False,
        ),
    ] = None,
    machine: Annotated[
        bool,
        typer.Option(
            "--machine",
            help="Instead of a path: the CPU, the kernels that it runs, and their measured speeds.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what a model, a recipe, token shards, a tokenizer, a run or this machine is like."""
    if (path is None) is not machine:
        raise typer.BadParameter("expected a PATH, or --machine without one")
    description = _describe(path)
    if as_json:
        echo_json(description)
    else:
        typer.echo("\n".join(lines(description)))


def _describe(path: Path | None) -> dict[str, Any]:
    from modernbert.cli.descriptions import describe
    from modernbert.cli.machine import describe_this_machine

    return describe_this_machine() if path is None else describe(path)
