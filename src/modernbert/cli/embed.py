"""`modernbert embed`: turns the texts of a file into vectors."""

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modernbert.cli.embedding_job import ChunkBy, ChunkInput, EmbeddingJob, ids_beside, names_of
from modernbert.cli.inference_options import (
    BatchTokens,
    Compile,
    Model,
    PrecisionName,
    PrecisionOption,
    look_at,
    speed_of,
    warnings_told,
)
from modernbert.cli.job import kept_when_stopped
from modernbert.cli.options import AsJson, echo_json, takes_settings
from modernbert.cli.results import description_of, report_texts, write_results
from modernbert.cli.terminal import Meter, counted, tell
from modernbert.cli.text_input import InputRow, TextInput
from modernbert.data.remote_files import address_of
from modernbert.data.settings import InputSettings, ShareSettings
from modernbert.errors import InputError

if TYPE_CHECKING:
    from modernbert.inference.index_folder import IndexKind, IndexOptions
    from modernbert.inference.retriever import Retriever
    from modernbert.inference.sparse_embedder import SparseVector


class IndexKindOption(StrEnum):
    """The number format of the vectors that an index searches."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    BINARY = "binary"


_ROWS = InputSettings()
_ALONE = ShareSettings()


@takes_settings
def embed(
    input_file: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A file of texts or rows: CSV, TSV, JSON, Parquet, Arrow, or one text per line; a "
            "folder or an address of such files.",
            show_default=False,
        ),
    ],
    model: Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="A .npy file (ids are written beside it), a .parquet file, or an .index folder; "
            "a .jsonl file for sparse vectors. It may be an address, such as s3://bucket/OUT.npy.",
            show_default=False,
        ),
    ],
    kind: Annotated[
        IndexKindOption | None,
        typer.Option(
            help="Number format of an .index: float32, int8 or binary for one vector per text; "
            "float32, float16 or int8 for one per token.",
            show_default="float32; float16 for one vector per token",
        ),
    ] = None,
    clusters: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Find candidates in an .index of one vector per token by encodings of so many "
            "bytes per document, such as 1024, and compare only those exactly.",
            show_default="every document is compared",
        ),
    ] = None,
    pool_factor: Annotated[
        int,
        typer.Option(
            min=1,
            help="Keep one vector for so many of a document's tokens, by joining the most similar "
            "ones (one vector per token).",
        ),
    ] = 1,
    faiss: Annotated[
        bool, typer.Option("--faiss", help="Write a FAISS index into the .index folder as well.")
    ] = False,
    texts: Annotated[
        bool,
        typer.Option(
            "--texts/--no-texts", help="Keep the texts in an .index, for `search` to show."
        ),
    ] = True,
    chunks: Annotated[
        ChunkBy | None,
        typer.Option(
            help="Divide texts after so many tokens or between sentences, and write a vector for "
            "each piece, computed from one pass over the whole text. The id of a piece is "
            "ID#char=START,END.",
            show_default=False,
        ),
    ] = None,
    chunk_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The most tokens of a piece; a longer sentence is a piece of its own.",
            show_default="256",
        ),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            help="Keep this column in an .index too, for `search` to show; may be repeated.",
            show_default=False,
        ),
    ] = None,
    bm25: Annotated[
        str,
        typer.Option(
            metavar="LANGUAGE",
            help="Index the words of the texts as well, by the rules of a language such as "
            "english, or as they are (none).",
            show_default="no words",
        ),
    ] = "",
    add: Annotated[
        bool,
        typer.Option(
            "--add",
            help="Add the texts to an existing .index, with its options; a text whose id it has "
            "replaces the old one.",
        ),
    ] = False,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale each vector to length 1.")
    ] = False,
    truncate_dim: Annotated[
        int | None,
        typer.Option(
            min=1, help="Keep only the first N dimensions of each vector.", show_default=False
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="A text to put before each text.", show_default=False)
    ] = None,
    prompt_name: Annotated[
        str | None,
        typer.Option(
            help="The name of one of the model's prompts.",
            show_default="that of documents, for an .index",
        ),
    ] = None,
    precision: PrecisionOption = PrecisionName.AUTO,
    compile: Compile = False,
    batch_tokens: BatchTokens = None,
    rows: InputSettings = _ROWS,
    share: ShareSettings = _ALONE,
    as_json: AsJson = False,
) -> None:
    """Embed the texts of a file.

    The model may give one vector per text, one per token, or weights of the vocabulary's tokens
    (a sparse model), which are written as JSON Lines with the id, the token ids and their weights.
    A text without an id is identified by the number of its line. You can stop the command at any
    moment: run it again to continue.

    Several tasks can share the work, on one machine or many: each is given --task and --tasks, and
    when all have ended, the same command with --tasks alone joins what they computed.
    """
    look_at(model, input_file=input_file, settings=rows)
    from modernbert.inference.loading import folder_fingerprint
    from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
    from modernbert.inference.retriever import load_retriever
    from modernbert.kinds import model_kind
    from modernbert.model.config_file import find_model

    fields = tuple(field or ())
    _check_index_options(
        output, fields, bm25, add=add, texts=texts, built=bool(kind or faiss or clusters)
    )
    if add and (chunks or share.tasks is not None):
        raise InputError("--add: takes whole texts, in one task; leave out --chunks and --tasks")
    reader = TextInput(input_file, rows, share=share, fields=fields, needs_ids=add)
    next(iter(reader), None)  # what is wrong with the file's columns is told at once
    folder = find_model(model, weights=True)
    if model_kind(folder) == "sparse":
        _refuse_for_one_vector(False, clusters=clusters, pool_factor=pool_factor)
        if kind or faiss or normalize or truncate_dim or chunks or fields or bm25 or add:
            raise InputError(
                f"{model}: gives sparse vectors; leave out --kind, --faiss, --normalize, "
                "--truncate-dim, --chunks, --field, --bm25 and --add"
            )
        from modernbert.inference.sparse_embedder import SparseEmbedder

        if output.suffix != ".jsonl":
            raise InputError(f"{output}: the model gives sparse vectors; name a .jsonl file")
        sparse = SparseEmbedder.from_pretrained(folder, precision=precision.value)
        if compile:
            sparse.compile()
        if prompt is None and prompt_name is None:
            prompt = sparse.settings.side_prompt("document")
        description = description_of(
            "embed", model, rows, precision=precision.value, prompt=prompt, prompt_name=prompt_name
        )
        run = partial(
            sparse.stream, prompt=prompt, prompt_name=prompt_name, batch_tokens=batch_tokens
        )
        write_results(output, reader, description, run, _sparse_line, as_json=as_json)
        return
    embedder = load_retriever(folder, precision.value)
    if compile:
        embedder.compile()
    multi = isinstance(embedder, MultiVectorEmbedder)
    _refuse_for_one_vector(multi, clusters=clusters, pool_factor=pool_factor)
    chosen = _kind(kind, output, multi=multi, faiss=faiss)
    options: dict[str, Any] = {"truncate_dim": truncate_dim, "normalize_embeddings": normalize}
    if isinstance(embedder, MultiVectorEmbedder):
        if normalize or truncate_dim or chunks or prompt is not None or prompt_name is not None:
            raise InputError(
                f"{model}: computes one vector per token and has its own prompts; leave out "
                "--normalize, --truncate-dim, --chunks, --prompt and --prompt-name"
            )
        options = {"side": "document"} | ({"pool_factor": pool_factor} if pool_factor > 1 else {})
    else:
        if output.suffix == ".index" and prompt is None and prompt_name is None:
            prompt = embedder.settings.first_prompt(("document", "passage", "corpus"))
        options["prompt"] = embedder.settings.prompt(prompt, prompt_name)
    source: TextInput | ChunkInput = reader
    described = options
    if chunks is not None:
        from modernbert.inference.chunks import ChunkSettings

        settings = ChunkSettings(by=chunks.value, num_tokens=chunk_tokens or 256)
        source = ChunkInput(reader, embedder.tokenizer, settings)
        described = {**options, "chunks": asdict(settings)}
    elif chunk_tokens is not None:
        raise InputError("--chunk-tokens: has no effect without --chunks")
    fingerprint = folder_fingerprint(folder)
    width = truncate_dim or embedder.dim
    job = EmbeddingJob(
        output,
        width,
        {
            **reader.identity,
            **asdict(rows),
            "model": fingerprint,
            "precision": precision.value,
            **described,
            **({"added": True} if add else {}),
        },
        multi=multi,
        share=share,
        adds=add,
        faiss=faiss,
    )
    options_of_index: IndexOptions = {"kind": chosen, "model": fingerprint, "bm25": bm25}
    if clusters:
        options_of_index["clusters"] = clusters
    with kept_when_stopped(job), job:
        if share.joins:
            job.join()
        else:
            _run(job, source, embedder, {**options, "batch_tokens": batch_tokens})
        kept = (row.text for row in source) if texts else None
        more = (row.fields for row in source) if fields else None
        job.finish(options=options_of_index, texts=kept, fields=more)
    num_vectors = job.num_vectors
    if str(reader.skipped):
        tell(str(reader.skipped))
    if share.task is not None:
        report_texts(output, job.num_done, share, as_json)
        return
    if faiss:
        tell(f"{output / 'index.faiss'}: written")
    _report(output, num_vectors, width, as_json)


def _sparse_line(record: InputRow, vector: "SparseVector") -> dict[str, Any]:
    return {
        "id": record.id,
        "token_ids": vector.token_ids.tolist(),
        "weights": vector.weights.tolist(),
    }


def _check_index_options(
    output: Path, fields: tuple[str, ...], bm25: str, *, add: bool, texts: bool, built: bool
) -> None:
    """Refuse what an output has no use for before the work begins."""
    from modernbert.inference.bm25 import words_of
    from modernbert.inference.index import Index

    if output.suffix != ".index" and (fields or bm25 or add):
        raise InputError("--field, --bm25 and --add: have no effect without an .index as --output")
    if add:
        if address_of(output):
            raise InputError("--add: needs an index on this machine, and no address")
        if bm25 or built:
            raise InputError(
                "--add: the index is as it was built; leave out --bm25, --kind, --clusters, --faiss"
            )
        Index.open(output)
    if bm25:
        if not texts:
            raise InputError("--bm25: needs the texts; leave out --no-texts")
        words_of(bm25)


def _refuse_for_one_vector(multi: bool, *, clusters: int | None, pool_factor: int) -> None:
    """Refuse what only documents with several vectors have, and numbers that no index can have."""
    from modernbert.inference.index_folder import require_clusters

    if not multi and (clusters or pool_factor > 1):
        raise InputError("--clusters and --pool-factor: need a model of one vector per token")
    require_clusters(clusters or 0, is_ragged=multi)


def _kind(kind: IndexKindOption | None, output: Path, *, multi: bool, faiss: bool) -> "IndexKind":
    """What an index is searched in; what cannot be is refused before the work begins."""
    from modernbert.extras import import_extra
    from modernbert.inference.index_folder import KINDS, require_one_of

    if kind is not None and output.suffix != ".index":
        raise InputError("--kind: has no effect without an .index as --output")
    if faiss:
        if output.suffix != ".index" or multi or address_of(output):
            raise InputError("--faiss: needs an .index with one vector per text, and no address")
        import_extra("faiss")
    chosen: IndexKind
    chosen = kind.value if kind is not None else "float16" if multi else "float32"
    require_one_of("--kind", chosen, KINDS[multi])
    return chosen


def _run(
    job: EmbeddingJob,
    source: TextInput | ChunkInput,
    embedder: "Retriever",
    options: dict[str, Any],
) -> None:
    import numpy as np

    from modernbert.inference.embedder import Embedder

    chunks = source.settings if isinstance(source, ChunkInput) else None
    left = (
        source.after(job.num_done)
        if isinstance(source, ChunkInput)
        else islice(source, job.num_done, None)
    )
    ids: deque[str] = deque()

    def texts() -> Iterator[str]:
        for record in left:
            ids.append(record.id)
            yield record.text

    if job.is_complete:
        return
    if job.num_done:
        tell(f"going on after {counted(job.num_done, 'text' if chunks is None else 'piece')}")
    with Meter("embedding") as meter, warnings_told():
        options = {**options, "on_progress": speed_of(meter)}
        if chunks is not None:
            assert isinstance(embedder, Embedder)
            for found in embedder.stream_chunks(texts(), chunks=chunks, **options):
                job.append(names_of(ids.popleft(), found.borders), found.vectors)
            return
        for block in embedder.stream(texts(), **options):
            names = [ids.popleft() for _ in block]
            if isinstance(block, list):  # of one array a text
                lengths = np.array([[len(each)] for each in block])
                job.append(names, np.concatenate(block), lengths)
            else:
                job.append(names, block)


def _report(output: Path, rows: int, dim: int, as_json: bool) -> None:
    if as_json:
        ids = str(ids_beside(output)) if output.suffix == ".npy" else None
        echo_json({"output": str(output), "ids": ids, "vectors": rows, "dim": dim})
    else:
        typer.echo(f"{output}: {counted(rows, 'vector')} of {dim} numbers")
