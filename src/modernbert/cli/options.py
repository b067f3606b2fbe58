"""Arguments and options that several verbs share, so that they read the same everywhere."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Corpus = Annotated[
    list[Path],
    typer.Argument(
        metavar="CORPUS",
        help="Files and folders of text, Markdown, code, JSON Lines, Parquet or a saved dataset; "
        "packed as .gz, .xz or .zst too.",
        show_default=False,
    ),
]

TextField = Annotated[
    str, typer.Option(help="The name of the text in JSON records and in columns.")
]

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]


def echo_json(value: Any) -> None:
    """One line of JSON on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False))
