"""`modernbert push`: uploads a folder to the hub."""

from pathlib import Path
from typing import Annotated

import typer

from modernbert.cli.terminal import tell


def push(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Folder of a model, a tokenizer, an export, token shards or an index.",
            show_default=False,
        ),
    ],
    hub_id: Annotated[
        str,
        typer.Argument(metavar="OWNER/NAME", help="The repository on the hub.", show_default=False),
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private if it is new.")
    ] = False,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Commit message.", show_default=False)
    ] = None,
) -> None:
    """Push a folder to the hub.

    Its README.md becomes the model card. A folder that holds pickles or lacks a README.md is
    refused before anything is sent.
    """
    from modernbert.hub import push_folder

    tell(f"pushed to {push_folder(folder, hub_id, private=private, message=message)}")
