"""`modernbert search` finds texts in an index; `modernbert index` changes one."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from modernbert.cli.inference import (
    InputFile,
    Model,
    PrecisionOption,
    TextArguments,
    look_at,
    results_of,
)
from modernbert.cli.options import AsJson, argument, echo_json, example, takes_settings
from modernbert.cli.terminal import counted
from modernbert.data.settings import InputSettings
from modernbert.errors import InputError
from modernbert.reading import read_text

if TYPE_CHECKING:
    from modernbert.inference.index import Hit, Index


Folder = Annotated[Path, argument("INDEX", "An index written by `modernbert embed -o NAME.index`.")]

_ROWS = InputSettings()
_SHOWN_CHARACTERS = 100


@takes_settings
def search(
    index: Folder,
    model: Model,
    texts: TextArguments = None,
    input_file: InputFile = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of hits for each query.")] = 10,
    by: Annotated[
        Literal["vectors", "bm25", "hybrid"] | None,
        typer.Option(
            help="Compare vectors, words (bm25), or both (hybrid).",
            show_default="hybrid if the index was built with --bm25",
        ),
    ] = None,
    fusion: Annotated[
        Literal["rrf", "scores"],
        typer.Option(help="Join both rankings by reciprocal ranks (rrf) or by weighted scores."),
    ] = "rrf",
    weight: Annotated[
        float, typer.Option(min=0, max=1, help="The share of the vectors in a hybrid search.")
    ] = 0.5,
    show: Annotated[
        str,
        typer.Option(
            metavar="FIELD,...",
            help="What to show of each hit: score, id, row, text, or a column that was kept with "
            "`embed --field`.",
        ),
    ] = "score,id,text",
    oversample: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rescore top-k times this many candidates (int8 and binary indexes, encodings).",
            show_default="4 for int8, 16 for binary, 384 for encodings",
        ),
    ] = None,
    rows: InputSettings = _ROWS,
    precision: PrecisionOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Find the texts of an index that answer a query best.

    Queries get the model's prompt for queries. An index with one vector per token is searched by
    MaxSim, and one that was built with --bm25 by words as well. Each hit is shown with its score,
    its id and the beginning of its text. With --json, each line is an object with a query and the
    list of its hits, with whole texts.
    """
    from modernbert.kinds import NAMES, kind_of

    if (found := kind_of(index)) != "index":
        raise InputError(f"{index}: holds {NAMES[found]}, expected a search index")
    look_at(model, input_file=input_file, settings=rows)
    from modernbert.inference.index import Index
    from modernbert.inference.loading import folder_fingerprint
    from modernbert.inference.retriever import SearchBy, load_retriever, search_texts
    from modernbert.inference.similarity import Fusion
    from modernbert.model.config_file import find_model

    opened = Index.open(index)
    folder = find_model(model, weights=True)
    if opened.manifest.model and opened.manifest.model != folder_fingerprint(folder):
        raise InputError(f"{model}: did not make the vectors of {index}; use that one")
    chosen: SearchBy = by or ("hybrid" if opened.manifest.bm25 else "vectors")
    names = [name for name in show.split(",") if name]
    opened.require_fields(name for name in names if name not in ("score", "id", "row"))
    retriever = None if chosen == "bm25" else load_retriever(folder, precision)
    joined = Fusion(method=fusion, weight=weight)

    def run(queries: Iterable[str]) -> "Iterator[list[Hit]]":
        return search_texts(
            opened, retriever, queries, top_k, by=chosen, fusion=joined, oversample=oversample
        )

    for record, hits in results_of(texts, input_file, run, rows):
        if as_json:
            echo_json({"id": record.id, "query": record.text, "hits": list(map(asdict, hits))})
        else:
            typer.echo("\n".join(_report(record.text, hits, names)))


def _report(query: str, hits: "list[Hit]", names: list[str]) -> Iterator[str]:
    """Show a query, and below it a line for each hit."""
    yield query
    for hit in hits:
        yield "    " + "  ".join(_shown(hit, name) for name in names)


def _shown(hit: "Hit", name: str) -> str:
    """One field of a hit."""
    if name == "score":
        return f"{hit.score:.4f}"
    value = getattr(hit, name) if name in ("id", "row", "text") else (hit.fields or {}).get(name)
    if name == "id":
        return json.dumps(value, ensure_ascii=False)[1:-1]
    return "" if value is None else _shortened(str(value))


def _shortened(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text[: 2 * _SHOWN_CHARACTERS].split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 3]}..."


index_app = typer.Typer(
    help="Delete documents from an index, compact it, or estimate its size.",
    no_args_is_help=True,
    epilog=example("index delete texts.index 17 42"),
)


@index_app.command(epilog=example("index delete texts.index 17 42"))
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

    A search that runs at the same time sees all of the changes or none of them. To add or replace
    documents, use `modernbert embed --add`.
    """
    wanted = [*(ids or []), *([] if input_file is None else _lines(input_file))]
    if not wanted:
        raise InputError("got no ids; name some, or a file with --input")
    opened = _opened(index)
    _report_change(index, "deleted", opened.delete(wanted), len(opened), as_json=as_json)


@index_app.command(epilog=example("index compact texts.index"))
def compact(index: Folder, as_json: AsJson = False) -> None:
    """Compact an index into one piece.

    This frees the space of deleted and replaced documents.
    """
    opened = _opened(index)
    opened.compact()
    _report_change(index, "written", len(opened), len(opened), as_json=as_json)


@index_app.command(epilog=example("index size --documents 1000000 --dim 64 --vectors 19"))
def size(
    documents: Annotated[int, typer.Option(min=1, help="How many documents there will be.")],
    dim: Annotated[int, typer.Option(min=1, help="How many numbers a vector has.")],
    vectors: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Mean number of vectors per document, for a model with one vector per token.",
            show_default="one vector per text",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="As for `embed`.", show_default="float32; float16 for several vectors per document"
        ),
    ] = None,
    clusters: Annotated[int, typer.Option(min=0, help="As for `embed`.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compute how large an index will be, before anything is embedded.

    Ids, texts and the index of words need additional space. The files are mapped into memory: a
    search is fast when the encodings, or all vectors if there are none, fit into memory.
    """
    from modernbert.inference.index_folder import (
        KINDS,
        IndexManifest,
        index_bytes,
        require_clusters,
        require_one_of,
    )

    several = vectors is not None
    chosen: Any = kind or ("float16" if several else "float32")
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


def _report_change(index: Path, done: str, count: int, left: int, *, as_json: bool) -> None:
    if as_json:
        echo_json({"index": str(index), done: count, "documents": left})
    else:
        typer.echo(f"{index}: {counted(count, 'document')} {done}, {counted(left, 'document')} now")
