"""`modernbert index`: changes a search index."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modernbert.cli.options import AsJson, echo_json, example
from modernbert.cli.terminal import counted
from modernbert.errors import InputError

if TYPE_CHECKING:
    from modernbert.inference.index import Index

app = typer.Typer(
    help="Delete documents of a search index, or compact it.",
    no_args_is_help=True,
    epilog=example("index delete texts.index 17 42"),
)

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="INDEX",
        help="An index written by `modernbert embed -o NAME.index`.",
        show_default=False,
    ),
]


@app.command(epilog=example("index delete texts.index 17 42"))
def delete(
    index: Folder,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of documents.")
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option("--input", "-i", metavar="FILE", help="A file of ids, one per line."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Delete documents by their ids.

    A search at the same time sees all of the changes or none. To add and to replace documents, use
    `modernbert embed --add`.
    """
    wanted = [*(ids or []), *([] if input_file is None else _lines(input_file))]
    if not wanted:
        raise InputError("got no ids; name some, or a file with --input")
    opened = _opened(index)
    _report(index, "deleted", opened.delete(wanted), len(opened), as_json=as_json)


@app.command(epilog=example("index compact texts.index"))
def compact(index: Folder, as_json: AsJson = False) -> None:
    """Compact an index into one piece.

    This frees the space of deleted and replaced documents.
    """
    opened = _opened(index)
    opened.compact()
    _report(index, "written", len(opened), len(opened), as_json=as_json)


def _lines(path: Path) -> Iterable[str]:
    return (line for line in path.read_text(encoding="utf-8").splitlines() if line)


def _opened(path: Path) -> "Index":
    from modernbert.kinds import NAMES, kind_of

    if (found := kind_of(path)) != "index":
        raise InputError(f"{path}: holds {NAMES[found]}, expected a search index")
    from modernbert.inference.index import Index

    return Index.open(path)


def _report(index: Path, done: str, count: int, left: int, *, as_json: bool) -> None:
    if as_json:
        echo_json({"index": str(index), done: count, "documents": left})
    else:
        typer.echo(f"{index}: {counted(count, 'document')} {done}, {counted(left, 'document')} now")
