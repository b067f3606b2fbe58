"""Arguments and options that several verbs share."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Corpus = Annotated[
    list[Path],
    typer.Argument(
        metavar="CORPUS",
        help="Files and folders: text, Markdown, code, JSON Lines, Parquet or saved datasets, "
        "compressed as .gz, .xz or .zst or not.",
        show_default=False,
    ),
]

TextField = Annotated[str, typer.Option(help="The field or column that holds the text.")]

AsJson = Annotated[bool, typer.Option("--json", help="Write the result to stdout as JSON.")]


def echo_json(value: Any) -> None:
    """Write a value to stdout as one line of JSON."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def example(arguments: str) -> str:
    """The last line of a verb's help."""
    return f"Example: `modernbert {arguments}`"
