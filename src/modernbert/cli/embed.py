"""`modernbert embed`: the texts of a file to vectors."""

from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modernbert.cli.embedding_job import EmbeddingJob, ids_beside
from modernbert.cli.formatting import counted
from modernbert.cli.inference_options import (
    BatchTokens,
    IdField,
    Model,
    Precision,
    PrecisionOption,
    Strict,
    speed_of,
    warnings_told,
)
from modernbert.cli.options import AsJson, TextField, echo_json
from modernbert.cli.terminal import Meter, tell
from modernbert.cli.text_input import TextInput

if TYPE_CHECKING:
    from modernbert.inference.embedder import Embedder

_STOPPED = 130


class IndexKindOption(StrEnum):
    """What an index is searched in."""

    FLOAT32 = "float32"
    INT8 = "int8"
    BINARY = "binary"


def embed(
    input_file: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="JSON Lines, Parquet, or a text a line; packed as .gz, .xz or .zst too.",
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
            help="A .npy file (the ids go beside it), a .parquet file, or an .index to search in.",
            show_default=False,
        ),
    ],
    kind: Annotated[
        IndexKindOption, typer.Option(help="What an .index is searched in.")
    ] = IndexKindOption.FLOAT32,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Give each vector the length 1.")
    ] = False,
    truncate_dim: Annotated[
        int | None, typer.Option(min=1, help="Keep so many numbers of each.", show_default=False)
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="A text to put before each.", show_default=False)
    ] = None,
    prompt_name: Annotated[
        str | None,
        typer.Option(
            help="Of one of the model's prompts.", show_default="of documents, for an .index"
        ),
    ] = None,
    precision: PrecisionOption = Precision.AUTO,
    batch_tokens: BatchTokens = None,
    text_field: TextField = "text",
    id_field: IdField = "id",
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Turn the texts of a file into vectors, one for each.

    Stopped at any moment, it goes on where it was when the same command is run again. A text
    without an id has the number of its line.
    """
    from modernbert.inference.embedder import Embedder
    from modernbert.inference.loading import folder_fingerprint
    from modernbert.model.config_file import find_model

    reader = TextInput(input_file, text_field=text_field, id_field=id_field, strict=strict)
    folder = find_model(model, weights=True)
    embedder = Embedder.from_pretrained(folder, precision=precision.value)
    if output.suffix == ".index" and prompt is None and prompt_name is None:
        prompt = embedder.settings.first_prompt(("document", "passage", "corpus"))
    options = {
        "prompt": embedder.settings.prompt(prompt, prompt_name),
        "truncate_dim": truncate_dim,
        "normalize_embeddings": normalize,
    }
    fingerprint = folder_fingerprint(folder)
    job = EmbeddingJob(
        output,
        truncate_dim or embedder.dim,
        {
            "input": str(input_file.resolve()),
            "input_bytes": reader.file.num_bytes,
            "input_time": reader.file.mtime_ns,
            "text_field": text_field,
            "id_field": id_field,
            "model": fingerprint,
            "precision": precision.value,
            **options,
        },
    )
    try:
        _run(job, reader, embedder, {**options, "batch_tokens": batch_tokens})
        job.finish(kind=kind.value, model=fingerprint)
    except KeyboardInterrupt:
        tell(f"stopped after {counted(job.num_done, 'text')}; run the same command to go on")
        raise typer.Exit(_STOPPED) from None
    finally:
        job.close()
    if str(reader.skipped):
        tell(str(reader.skipped))
    _report(output, job.num_done, truncate_dim or embedder.dim, as_json)


def _run(
    job: EmbeddingJob, reader: TextInput, embedder: "Embedder", options: dict[str, Any]
) -> None:
    ids: list[str] = []

    def texts() -> Iterator[str]:
        for record in islice(reader, job.num_done, None):
            ids.append(record.id)
            yield record.text

    if job.num_done:
        tell(f"going on after {counted(job.num_done, 'text')}")
    with Meter("embedding") as meter, warnings_told():
        for block in embedder.stream(texts(), **options, on_progress=speed_of(meter)):
            job.append(ids[: len(block)], block)
            del ids[: len(block)]


def _report(output: Path, rows: int, dim: int, as_json: bool) -> None:
    if as_json:
        ids = str(ids_beside(output)) if output.suffix == ".npy" else None
        echo_json({"output": str(output), "ids": ids, "vectors": rows, "dim": dim})
    else:
        typer.echo(f"{output}: {counted(rows, 'vector')} of {dim} numbers")
