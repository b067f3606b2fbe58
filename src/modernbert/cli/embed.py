"""`modernbert embed`: turns the texts of a file into vectors."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modernbert.cli.embedding_job import (
    ChunkInput,
    EmbeddingJob,
    IndexSettings,
    VectorSettings,
    ids_beside,
    names_of,
)
from modernbert.cli.inference import (
    BatchTokens,
    Compile,
    Model,
    PrecisionOption,
    description_of,
    look_at,
    report_texts,
    speed_of,
    warnings_told,
    write_results,
)
from modernbert.cli.job import kept_when_stopped
from modernbert.cli.options import AsJson, argument, echo_json, takes_settings
from modernbert.cli.terminal import Meter, counted, tell
from modernbert.cli.text_input import InputRow, TextInput
from modernbert.data.remote_files import address_of
from modernbert.data.settings import InputSettings, ShareSettings
from modernbert.errors import InputError

if TYPE_CHECKING:
    from modernbert.inference.index import Index
    from modernbert.inference.index_folder import IndexKind, IndexOptions
    from modernbert.inference.retriever import Retriever
    from modernbert.inference.sparse_embedder import SparseVector
    from modernbert.model.choices import PrecisionChoice
    from modernbert.tokenizer.texts import Span


_ROWS = InputSettings()
_ALONE = ShareSettings()
_INDEX = IndexSettings()
_VECTORS = VectorSettings()
_PLAIN = replace(_VECTORS, pool_factor=1)
_PROMPTS: dict[str, Any] = {"prompt": None, "prompt_name": None}


@takes_settings
def embed(
    input_file: Annotated[
        Path,
        argument(
            "INPUT",
            "A file of texts or rows: CSV, TSV, JSON, Parquet, Arrow, or one text per line; a "
            "folder or an address of such files.",
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
    index: IndexSettings = _INDEX,
    vectors: VectorSettings = _VECTORS,
    precision: PrecisionOption = "auto",
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
    from modernbert.kinds import model_kind
    from modernbert.model.config_file import find_model

    vectors = replace(vectors, pool_factor=_pool_factor(output, index, vectors.pool_factor))
    if index.add and (vectors.chunks or vectors.borders or share.tasks is not None):
        raise InputError(
            "--add: takes whole texts, in one task; leave out --chunks, --borders and --tasks"
        )
    if vectors.borders and vectors.chunks:
        raise InputError("--chunks: texts are divided at --borders; leave out one of them")
    if vectors.chunk_tokens is not None and vectors.chunks is None:
        raise InputError("--chunk-tokens: has no effect without --chunks")
    columns = (*index.fields, *([vectors.borders] if vectors.borders else []))
    reader = TextInput(input_file, rows, share=share, fields=columns, needs_ids=index.add)
    next(iter(reader), None)  # what is wrong with the file's columns is told at once
    work = _Work(
        model=model,
        folder=find_model(model, weights=True),
        reader=reader,
        output=output,
        index=index,
        vectors=vectors,
        rows=rows,
        share=share,
        precision=precision,
        compile=compile,
        batch_tokens=batch_tokens,
        as_json=as_json,
    )
    if model_kind(work.folder) == "sparse":
        _write_sparse(work)
    else:
        _write_vectors(work)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is embedded by which model, how, and where it goes."""

    model: str
    folder: Path
    reader: TextInput
    output: Path
    index: IndexSettings
    vectors: VectorSettings
    rows: InputSettings
    share: ShareSettings
    precision: "PrecisionChoice"
    compile: bool
    batch_tokens: int | None
    as_json: bool


def _write_sparse(work: _Work) -> None:
    """Write weights of the vocabulary's tokens, a line for each text."""
    from modernbert.inference.sparse_embedder import SparseEmbedder

    _refuse_for_one_vector(work, multi=False)
    index, vectors = work.index, work.vectors
    if replace(index, texts=True) != _INDEX or replace(vectors, **_PROMPTS) != _PLAIN:
        raise InputError(
            f"{work.model}: gives sparse vectors; leave out --kind, --faiss, --normalize, "
            "--truncate-dim, --chunks, --borders, --field, --bm25 and --add"
        )
    if work.output.suffix != ".jsonl":
        raise InputError(f"{work.output}: the model gives sparse vectors; name a .jsonl file")
    embedder = SparseEmbedder.from_pretrained(work.folder, precision=work.precision)
    if work.compile:
        embedder.compile()
    prompts: dict[str, Any] = {"prompt": vectors.prompt, "prompt_name": vectors.prompt_name}
    if prompts == _PROMPTS:
        prompts["prompt"] = embedder.settings.side_prompt("document")
    description = description_of(
        "embed", work.model, work.rows, precision=work.precision, **prompts
    )
    run = partial(embedder.stream, **prompts, batch_tokens=work.batch_tokens)
    write_results(work.output, work.reader, description, run, _sparse_line, as_json=work.as_json)


def _write_vectors(work: _Work) -> None:
    """Write one vector for each text or piece, or several, into a file or an index."""
    from modernbert.inference.loading import folder_fingerprint
    from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder
    from modernbert.inference.retriever import load_retriever

    embedder = load_retriever(work.folder, work.precision)
    if work.compile:
        embedder.compile()
    multi, index, share = isinstance(embedder, MultiVectorEmbedder), work.index, work.share
    _refuse_for_one_vector(work, multi=multi)
    built: IndexOptions = {
        "kind": _kind(index, work.output, multi=multi),
        "model": folder_fingerprint(work.folder),
        "bm25": index.bm25,
    }
    if index.clusters:
        built["clusters"] = index.clusters
    if multi:
        built["pool_factor"] = work.vectors.pool_factor or 1
    options = _options(work, embedder)
    source = _source(work, embedder)
    width = work.vectors.truncate_dim or embedder.dim
    job = EmbeddingJob(
        work.output,
        width,
        _identity(work, built["model"], options, source),
        multi=multi,
        share=share,
        adds=index.add,
        faiss=index.faiss,
    )
    with kept_when_stopped(job), job:
        if share.joins:
            job.join()
        else:
            _run(job, source, embedder, {**options, "batch_tokens": work.batch_tokens})
        kept = (row.text for row in source) if index.texts else None
        fields = ({name: row.fields[name] for name in index.fields} for row in source)
        job.finish(options=built, texts=kept, fields=fields if index.fields else None)
    if str(work.reader.skipped):
        tell(str(work.reader.skipped))
    if share.task is not None:
        report_texts(work.output, job.num_done, share, work.as_json)
        return
    if index.faiss:
        tell(f"{work.output / 'index.faiss'}: written")
    _report(work.output, job.num_vectors, width, work.as_json)


def _options(work: _Work, embedder: "Retriever") -> dict[str, Any]:
    """What the embedder is asked for; what it does not know is refused."""
    from modernbert.inference.multi_vector_embedder import MultiVectorEmbedder

    vectors, prompt = work.vectors, work.vectors.prompt
    if isinstance(embedder, MultiVectorEmbedder):
        if replace(vectors, pool_factor=1) != _PLAIN:
            raise InputError(
                f"{work.model}: computes one vector per token and has its own prompts; leave out "
                "--normalize, --truncate-dim, --chunks, --borders, --prompt and --prompt-name"
            )
        factor = vectors.pool_factor or 1
        return {"side": "document"} | ({"pool_factor": factor} if factor > 1 else {})
    if work.output.suffix == ".index" and prompt is None and vectors.prompt_name is None:
        prompt = embedder.settings.side_prompt("document")
    return {
        "truncate_dim": vectors.truncate_dim,
        "normalize_embeddings": vectors.normalize,
        "prompt": embedder.settings.prompt(prompt, vectors.prompt_name),
    }


def _source(work: _Work, embedder: "Retriever") -> TextInput | ChunkInput:
    """The texts, or their pieces."""
    from modernbert.inference.chunks import ChunkSettings

    if work.vectors.borders:
        return ChunkInput(work.reader, embedder.tokenizer, work.vectors.borders)
    if work.vectors.chunks is None:
        return work.reader
    settings = ChunkSettings(
        by=work.vectors.chunks, num_tokens=work.vectors.chunk_tokens or ChunkSettings().num_tokens
    )
    return ChunkInput(work.reader, embedder.tokenizer, settings)


def _identity(
    work: _Work, model: str, options: Mapping[str, Any], source: TextInput | ChunkInput
) -> dict[str, Any]:
    """All that the vectors depend on: a job that was stopped goes on only if it is the same."""
    chunks: dict[str, Any] = {}
    if isinstance(source, ChunkInput):
        way = source.way
        chunks["chunks"] = {"borders": way} if isinstance(way, str) else asdict(way)
    return {
        **work.reader.identity,
        **asdict(work.rows),
        "model": model,
        "precision": work.precision,
        **options,
        **chunks,
        **({"added": True} if work.index.add else {}),
    }


def _sparse_line(record: InputRow, vector: "SparseVector") -> dict[str, Any]:
    return {
        "id": record.id,
        "token_ids": vector.token_ids.tolist(),
        "weights": vector.weights.tolist(),
    }


def _pool_factor(output: Path, index: IndexSettings, given: int | None) -> int:
    """The pooling of the index that grows, or what is given; see also `_check_index`."""
    opened = _check_index(output, index)
    stored = opened.manifest.pool_factor if opened else (given or 1)
    if given not in (None, stored):
        raise InputError(
            f"--pool-factor: got {given}, but {output} was built with {stored}; leave it out"
        )
    return stored


def _check_index(output: Path, index: IndexSettings) -> "Index | None":
    """Refuse what an output has no use for before the work begins.

    Returns:
        The index to which texts are added, if they are.
    """
    from modernbert.inference.bm25 import words_of
    from modernbert.inference.index import Index

    if output.suffix != ".index" and (index.fields or index.bm25 or index.add):
        raise InputError("--field, --bm25 and --add: have no effect without an .index as --output")
    if index.add:
        if address_of(output):
            raise InputError("--add: needs an index on this machine, not an address")
        if index.bm25 or index.kind or index.faiss or index.clusters:
            raise InputError(
                "--add: the index is as it was built; leave out --bm25, --kind, --clusters, --faiss"
            )
        opened = Index.open(output)
        _require_same_parts(output, index, opened)
        return opened
    if index.bm25:
        if not index.texts:
            raise InputError("--bm25: needs the texts; leave out --no-texts")
        words_of(index.bm25)
    return None


def _require_same_parts(output: Path, index: IndexSettings, opened: "Index") -> None:
    """Refuse to keep other parts of the new texts than the index keeps of the others."""
    if index.texts != opened.keeps_texts:
        said = "no texts; give --no-texts" if index.texts else "texts; leave out --no-texts"
        raise InputError(f"--add: {output} keeps {said}")
    if set(index.fields) != set(opened.field_names):
        got, kept = (", ".join(names) or "none" for names in (index.fields, opened.field_names))
        raise InputError(f"--field: got {got}, expected {kept}, which {output} keeps")


def _refuse_for_one_vector(work: _Work, *, multi: bool) -> None:
    """Refuse what only documents with several vectors have, and numbers that no index can have."""
    from modernbert.inference.index_folder import require_clusters

    if not multi and (work.index.clusters or work.vectors.pool_factor != 1):
        raise InputError("--clusters and --pool-factor: need a model of one vector per token")
    require_clusters(work.index.clusters or 0, is_ragged=multi)


def _kind(index: IndexSettings, output: Path, *, multi: bool) -> "IndexKind":
    """What an index is searched in; what cannot be is refused before the work begins."""
    from modernbert.extras import import_extra
    from modernbert.inference.index_folder import KINDS, require_one_of

    if index.kind is not None and output.suffix != ".index":
        raise InputError("--kind: has no effect without an .index as --output")
    if index.faiss:
        if output.suffix != ".index" or multi or address_of(output):
            raise InputError("--faiss: needs an .index with one vector per text, on this machine")
        import_extra("faiss")
    chosen: IndexKind = index.kind or ("float16" if multi else "float32")
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

    chunked = source if isinstance(source, ChunkInput) else None
    left = (
        chunked.after(job.num_done) if chunked is not None else islice(source, job.num_done, None)
    )
    ids: deque[str] = deque()
    borders: deque[list[Span]] = deque()

    def texts() -> Iterator[str]:
        for record in left:
            ids.append(record.id)
            if chunked is not None and isinstance(chunked.way, str):
                borders.append(chunked.borders(record))
            yield record.text

    def given() -> "Iterator[list[Span]]":
        while borders:
            yield borders.popleft()

    if job.is_complete:
        return
    if job.num_done:
        tell(f"going on after {counted(job.num_done, 'text' if chunked is None else 'piece')}")
    with Meter("embedding") as meter, warnings_told():
        options = {**options, "on_progress": speed_of(meter)}
        if chunked is not None:
            assert isinstance(embedder, Embedder)
            way: dict[str, Any] = {"chunks": chunked.way}
            if isinstance(chunked.way, str):
                way = {"borders": given()}
            for found in embedder.stream_chunks(texts(), **way, **options):
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
