"""`modernbert embed`: turns the texts of a file into vectors."""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modernbert.cli.chunk_input import ChunkBy, ChunkInput, names_of
from modernbert.cli.embedding_job import EmbeddingJob, ids_beside
from modernbert.cli.formatting import counted
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
from modernbert.cli.options import AsJson, echo_json, takes_settings
from modernbert.cli.terminal import Meter, tell
from modernbert.cli.text_input import TextInput
from modernbert.data.settings import InputSettings
from modernbert.errors import InputError, RunError

if TYPE_CHECKING:
    from modernbert.inference.retriever import Retriever
    from modernbert.model.precision import PrecisionChoice

_STOPPED = 130


class IndexKindOption(StrEnum):
    """The number format of the vectors that an index searches."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    BINARY = "binary"


_ROWS = InputSettings()


@takes_settings
def embed(
    input_file: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A file of texts or rows: CSV, TSV, JSON, Parquet, Arrow, or one text per line.",
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
            "a .jsonl file for sparse vectors.",
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
    as_json: AsJson = False,
) -> None:
    """Embed the texts of a file.

    The model may give one vector per text, one per token, or weights of the vocabulary's tokens
    (a sparse model), which are written as JSON Lines with the id, the token ids and their weights.
    A text without an id is identified by the number of its line. You can stop the command at any
    moment: run it again to continue; only sparse vectors are computed anew.
    """
    look_at(model, input_file=input_file, settings=rows)
    from modernbert.inference.loading import folder_fingerprint
    from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
    from modernbert.inference.retriever import load_retriever
    from modernbert.kinds import model_kind
    from modernbert.model.config_file import find_model

    reader = TextInput(input_file, rows)
    folder = find_model(model, weights=True)
    if model_kind(folder) == "sparse":
        if kind or faiss or normalize or truncate_dim or chunks:
            raise InputError(
                f"{model}: gives sparse vectors; leave out --kind, --faiss, --normalize, "
                "--truncate-dim and --chunks"
            )
        sparse = {"prompt": prompt, "prompt_name": prompt_name, "batch_tokens": batch_tokens}
        _embed_sparse(reader, folder, output, precision.value, compile, sparse, as_json=as_json)
        return
    embedder = load_retriever(folder, precision.value)
    if compile:
        embedder.compile()
    multi = isinstance(embedder, MultiVectorEmbedder)
    chosen = _kind(kind, output, multi=multi, faiss=faiss)
    options: dict[str, Any] = {"truncate_dim": truncate_dim, "normalize_embeddings": normalize}
    if isinstance(embedder, MultiVectorEmbedder):
        if normalize or truncate_dim or chunks or prompt is not None or prompt_name is not None:
            raise InputError(
                f"{model}: computes one vector per token and has its own prompts; leave out "
                "--normalize, --truncate-dim, --chunks, --prompt and --prompt-name"
            )
        options = {"side": "document"}
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
            "input": str(input_file.resolve()),
            "input_bytes": reader.file.num_bytes,
            "input_time": reader.file.mtime_ns,
            **asdict(rows),
            "model": fingerprint,
            "precision": precision.value,
            **described,
        },
        multi=multi,
    )
    try:
        with job:
            _run(job, source, embedder, {**options, "batch_tokens": batch_tokens})
            kept = (row.text for row in source) if texts else None
            job.finish(kind=chosen, model=fingerprint, texts=kept)
    except KeyboardInterrupt:
        tell(f"stopped after {counted(job.num_saved, 'text')}; run the same command to go on")
        raise typer.Exit(_STOPPED) from None
    except OSError as error:
        raise RunError(
            f"{output}: could not be written: {error.strerror or error}; "
            f"{counted(job.num_saved, 'text')} kept: mend it and run the same command to go on"
        ) from None
    num_vectors = job.num_vectors
    if str(reader.skipped):
        tell(str(reader.skipped))
    if faiss:
        from modernbert.inference.index import write_faiss

        tell(f"{write_faiss(output)}: written")
    _report(output, num_vectors, width, as_json)


def _embed_sparse(
    reader: TextInput,
    folder: Path,
    output: Path,
    precision: "PrecisionChoice",
    compile: bool,
    options: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Write the sparse vector of each text as a line; the file is there when all are done."""
    from modernbert.files import new_file
    from modernbert.inference.sparse_embedder import SparseEmbedder

    if output.suffix != ".jsonl":
        raise InputError(f"{output}: the model gives sparse vectors; name a .jsonl file")
    if output.exists():
        raise InputError(f"{output}: already exists; delete it or choose another name")
    embedder = SparseEmbedder.from_pretrained(folder, precision=precision)
    if compile:
        embedder.compile()
    if options["prompt"] is None and options["prompt_name"] is None:
        options["prompt"] = embedder.settings.side_prompt("document")
    ids: deque[str] = deque()

    def texts() -> Iterator[str]:
        for record in reader:
            ids.append(record.id)
            yield record.text

    num_vectors = 0
    with Meter("embedding") as meter, warnings_told(), new_file(output) as file:
        for vector in embedder.stream(texts(), **options, on_progress=speed_of(meter)):
            line = {
                "id": ids.popleft(),
                "token_ids": vector.token_ids.tolist(),
                "weights": vector.weights.tolist(),
            }
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            num_vectors += 1
        if not num_vectors:
            raise InputError(f"{output}: the input has no text; nothing was written")
    if str(reader.skipped):
        tell(str(reader.skipped))
    _report(output, num_vectors, embedder.dim, as_json)


def _kind(kind: IndexKindOption | None, output: Path, *, multi: bool, faiss: bool) -> str:
    """What an index is searched in; what cannot be is refused before the work begins."""
    from modernbert.extras import import_extra
    from modernbert.inference.index_folder import KINDS, require_one_of

    if kind is not None and output.suffix != ".index":
        raise InputError("--kind: has no effect without an .index as --output")
    if faiss:
        if output.suffix != ".index" or multi:
            raise InputError("--faiss: needs an .index with one vector per text")
        import_extra("faiss")
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
