"""Results of texts: on stdout, or in a file that can be continued and shared among tasks."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from modernbert.cli.inference_options import results_in_order, results_of, warnings_told
from modernbert.cli.job import LinesJob, kept_when_stopped
from modernbert.cli.options import echo_json
from modernbert.cli.terminal import Meter, counted, tell
from modernbert.cli.text_input import InputRow, RowKind, TextInput
from modernbert.data.settings import InputSettings, ShareSettings
from modernbert.errors import InputError

R = TypeVar("R")

ResultsFile = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT.jsonl",
        help="Write the results of --input there, a JSON object a line; it can be an address. "
        "The same command continues one that was stopped.",
        show_default="stdout",
    ),
]


def require_output(
    output: Path | None, texts: object, input_file: Path | None, share: ShareSettings
) -> None:
    """Check that the options fit together.

    Raises:
        InputError: There are shares without an output file, or that without an input file.
    """
    if output is None and share.tasks is not None:
        raise InputError("--tasks: needs --output, a file for the results")
    if output is not None and (texts or input_file is None):
        raise InputError("--output: needs --input, a file of texts")


def deliver(
    verb: str,
    model: str,
    texts: list[str] | None,
    input_file: Path | None,
    run: Callable[[Iterable[Any]], Iterator[R]],
    rows: InputSettings,
    *,
    kind: RowKind,
    name: str,
    parts: Callable[[InputRow, R], Any],
    lines: Callable[[InputRow, R], Iterator[str]],
    output: Path | None,
    share: ShareSettings,
    as_json: bool,
    options: Mapping[str, Any],
) -> None:
    """Write each text and its result to a file that can be continued, or to stdout.

    Args:
        verb: The name of the verb.
        model: The folder or hub id of the model.
        texts: The texts given as arguments, if any.
        input_file: A file of texts; stdin is read when neither is given.
        run: Computes the results of any number of texts, in order.
        rows: How to read the file.
        kind: What each row of the file holds.
        name: The key of the result in a JSON object.
        parts: Turns a record and its result into the value of that key.
        lines: Turns a record and its result into plain lines for stdout.
        output: The file of results; stdout when None.
        share: The share of the texts that this process computes.
        as_json: Whether to write JSON objects to stdout.
        options: What decides the results, beside the texts and the model.
    """

    def values(record: InputRow, result: R) -> dict[str, Any]:
        return {"id": record.id, "text": record.shown, name: parts(record, result)}

    if output is not None and input_file is not None:
        reader = TextInput(input_file, rows, kind=kind, share=share)
        description = description_of(verb, model, rows, **options)
        write_results(output, reader, description, run, values, as_json=as_json)
        return
    for record, result in results_of(texts, input_file, run, rows, kind=kind):
        if as_json:
            echo_json(values(record, result))
        else:
            shown = (f"    {line}" for line in lines(record, result))
            typer.echo("\n".join([record.text, *shown]))


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
    """Return what decides the results of a verb, besides the texts."""
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
