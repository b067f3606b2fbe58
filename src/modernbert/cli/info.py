"""`modernbert info`: describes a model, data, a run, a recipe or this machine."""

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
            help="A folder of a model, a tokenizer, shards, an index or a run; or a recipe.",
            show_default=False,
        ),
    ] = None,
    machine: Annotated[
        bool,
        typer.Option(
            "--machine",
            help="Describe the CPU, the kernels in use and their measured speeds instead.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Describe a model, tokenizer, data, index, run, recipe or machine."""
    if (path is None) is not machine:
        raise typer.BadParameter("give either a PATH or --machine")
    description = _describe(path)
    if as_json:
        echo_json(description)
    else:
        typer.echo("\n".join(lines(description)))


def _describe(path: Path | None) -> dict[str, Any]:
    from modernbert.cli.descriptions import describe
    from modernbert.cli.machine import describe_this_machine

    return describe_this_machine() if path is None else describe(path)
