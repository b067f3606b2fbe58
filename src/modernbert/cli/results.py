"""Results of a file of texts, written to a file that can be continued and shared among tasks."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from modernbert.cli.inference_options import results_in_order, warnings_told
from modernbert.cli.job import LinesJob, kept_when_stopped
from modernbert.cli.options import echo_json
from modernbert.cli.terminal import Meter, counted, tell
from modernbert.cli.text_input import InputRow, TextInput
from modernbert.data.settings import InputSettings, ShareSettings
from modernbert.errors import InputError

R = TypeVar("R")

ResultsFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT.jsonl",
        help="Write the results of --input there, a JSON object a line; it can be an address. A "
        "stopped command is continued by the same one.",
        show_default="stdout",
    ),
]


def require_output(
    output: Path | None, texts: object, input_file: Path | None, share: ShareSettings
) -> None:
    """Check that what was asked for goes together.

    Raises:
        InputError: Shares without a file to write, or results of texts that are no file.
    """
    if output is None and share.tasks is not None:
        raise InputError("--tasks: needs --output, a file for the results")
    if output is not None and (texts or input_file is None):
        raise InputError("--output: needs --input, a file of texts")


def write_results(
    output: Path,
    reader: TextInput,
    description: Mapping[str, Any],
    run: Callable[[Iterable[Any]], Iterator[R]],
    values: Callable[[InputRow, R], Mapping[str, Any]],
    *,
    as_json: bool,
    **finish: Any,
) -> None:
    """Compute what is missing of a file of results, and make the file when all is there.

    Args:
        output: The file of results, a JSON object a line.
        reader: The texts, or a share of them.
        description: What decides the results, beside the texts.
        run: Computes the results of any number of texts, in order.
        values: Turns a text and its result into the object of a line.
        as_json: Whether to say what was done as a JSON object.
        **finish: As `LinesJob` takes it.
    """
    job = LinesJob(output, {**reader.identity, **description}, share=reader.share)
    with kept_when_stopped(job), job:
        if reader.share.joins:
            job.join()
        elif not job.is_complete:
            _compute(job, reader, run, values)
        job.finish(**finish)
    if str(reader.skipped):
        tell(str(reader.skipped))
    report_texts(output, job.num_done, reader.share, as_json)


def report_texts(output: Path, num_texts: int, share: ShareSettings, as_json: bool) -> None:
    """Say what was written."""
    if as_json:
        echo_json({"output": str(output), "texts": num_texts, "task": share.task})
    elif share.task is not None:
        typer.echo(f"task {share.task} of {share.tasks}: {counted(num_texts, 'text')}")
    else:
        typer.echo(f"{output}: {counted(num_texts, 'text')}")


def description_of(verb: str, model: str, rows: InputSettings, **options: Any) -> dict[str, Any]:
    """What decides the results of a verb, beside the texts."""
    from modernbert.inference.loading import folder_fingerprint
    from modernbert.model.config_file import find_model

    fingerprint = folder_fingerprint(find_model(model, weights=True))
    return {"verb": verb, **asdict(rows), "model": fingerprint, **options}


def _compute(
    job: LinesJob,
    reader: TextInput,
    run: Callable[[Iterable[Any]], Iterator[R]],
    values: Callable[[InputRow, R], Mapping[str, Any]],
) -> None:
    if job.num_done:
        tell(f"going on after {counted(job.num_done, 'text')}")
    waiting = islice(reader, job.num_done, None)
    with Meter("computing") as meter, warnings_told():
        for record, result in results_in_order(waiting, run):
            line = json.dumps(values(record, result), ensure_ascii=False)
            job.add([line.encode() + b"\n"])
            meter.update(job.num_done, None, counted(job.num_done, "text"))
