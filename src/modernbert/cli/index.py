"""`modernbert index`: changes a search index."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modernbert.cli.options import AsJson, echo_json, example
from modernbert.cli.terminal import counted
from modernbert.errors import InputError
from modernbert.reading import read_text

if TYPE_CHECKING:
    from modernbert.inference.index import Index

app = typer.Typer(
    help="Delete documents from an index, compact it, or tell its size.",
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


@app.command(epilog=example("index size --documents 1000000 --dim 64 --vectors 19"))
def size(
    documents: Annotated[int, typer.Option(min=1, help="How many documents there will be.")],
    dim: Annotated[int, typer.Option(min=1, help="How many numbers a vector has.")],
    vectors: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="How many vectors a document has on average, of a model with one per token.",
            show_default="one vector per text",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="As of `embed`.", show_default="float32; int8 for several vectors per document"
        ),
    ] = None,
    clusters: Annotated[int, typer.Option(min=0, help="As of `embed`.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compute how large an index will be, before anything is embedded.

    Ids, texts and their words come on top. The files are mapped into memory: a search is fast when
    the encodings, or all vectors if there are none, fit into it.
    """
    from modernbert.inference.index_folder import (
        KINDS,
        IndexManifest,
        index_bytes,
        require_clusters,
        require_one_of,
    )

    several = vectors is not None
    chosen: Any = kind or ("int8" if several else "float32")
    require_one_of("--kind", chosen, KINDS[several])
    require_clusters(clusters, is_ragged=several)
    manifest = IndexManifest(
        count=documents,
        dim=dim,
        kind=chosen,
        num_vectors=None if vectors is None else round(documents * vectors),
        is_ragged=several,
        clusters=clusters,
    )
    sizes = index_bytes(manifest)
    if as_json:
        echo_json({**sizes, "total": sum(sizes.values())})
        return
    for name, num_bytes in {**sizes, "total": sum(sizes.values())}.items():
        typer.echo(f"{name:<10}{num_bytes / 1e9:10.3f} GB")


def _lines(path: Path) -> Iterable[str]:
    return (line for line in read_text(path).split("\n") if line)


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
