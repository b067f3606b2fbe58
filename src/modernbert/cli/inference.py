"""What the verbs that use a model share: options, texts that are read, results that are written."""

import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from modernbert.cli.job import LinesJob, kept_when_stopped
from modernbert.cli.options import argument, echo_json
from modernbert.cli.terminal import Meter, counted, short_count, tell
from modernbert.cli.text_input import Given, InputRow, RowKind, TextInput
from modernbert.data.settings import InputSettings, ShareSettings
from modernbert.errors import InputError, ModernBertWarning

if TYPE_CHECKING:
    from modernbert.inference.batching import Progress
    from modernbert.kinds import ModelKind


R = TypeVar("R")

Model = Annotated[str, argument("MODEL", "Folder or hub id (NAME@REVISION) of the model.")]


PrecisionOption = Annotated[
    Literal["auto", "float32", "bfloat16", "int8"],
    typer.Option("--precision", help="Number format to compute in; auto chooses the fastest here."),
]

Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="On a GPU, compile the layers with torch, which delays the first batches.",
    ),
]

BatchTokens = Annotated[
    int | None,
    typer.Option(min=1, help="The most tokens computed at once.", show_default="by device"),
]

TextArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TEXT]...", help="Texts; if none is given, --input or the lines of stdin are read."
    ),
]

InputFile = Annotated[
    Path | None,
    typer.Option(
        "--input",
        "-i",
        metavar="FILE",
        help="A file of texts or rows: CSV, TSV, JSON, Parquet, Arrow, or one text per line; a "
        "folder or an address of such files.",
        show_default=False,
    ),
]


def look_at(
    model: str,
    *wanted: "ModelKind",
    input_file: Path | None = None,
    settings: InputSettings | None = None,
    kind: RowKind = "texts",
) -> None:
    """Check the model and the file that a user named, before torch is imported for seconds.

    Args:
        model: A folder or a hub id.
        wanted: The kinds of model that the verb takes; any kind when empty.
        input_file: The file of texts, if there is one.
        settings: How it is read.
        kind: What its rows are.

    Raises:
        ModelFolderError: There is no such model, or it is of another kind.
        DocumentError: There is no such file.
        InputError: The file has no column of texts.
    """
    from modernbert.hub import require_model

    require_model(model, wanted)
    if input_file is not None:
        next(iter(TextInput(input_file, settings, kind=kind)), None)


@contextmanager
def warnings_told() -> Iterator[None]:
    """Show each warning of this package as one line, without a place in the code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", ModernBertWarning)
        shown = warnings.showwarning

        def show(message: Any, category: type[Warning], *place: Any, **rest: Any) -> None:
            if issubclass(category, ModernBertWarning):
                tell(f"warning: {message}")
            else:
                shown(message, category, *place, **rest)

        warnings.showwarning = show
        yield


def records_of(
    texts: list[str] | None,
    input_file: Path | None,
    settings: InputSettings | None = None,
    *,
    kind: RowKind = "texts",
) -> Iterator[InputRow]:
    """Yield the texts of the command line, of a file, or the lines of stdin."""
    if input_file is None:
        given = texts or (line.rstrip("\n") for line in sys.stdin if line.strip())
        yield from (InputRow(str(number), text) for number, text in enumerate(given, start=1))
        return
    reader = TextInput(input_file, settings, kind=kind)
    is_empty = True
    for row in reader:
        is_empty = False
        yield row
    if str(reader.skipped):
        tell(str(reader.skipped))
    elif is_empty:
        tell(f"{input_file}: has no text")


def results_of(
    texts: list[str] | None,
    input_file: Path | None,
    run: Callable[[Iterable[Any]], Iterator[R]],
    settings: InputSettings | None = None,
    *,
    kind: RowKind = "texts",
) -> Iterator[tuple[InputRow, R]]:
    """Yield each text with its result; someone who types texts gets each result at once.

    Args:
        texts: The texts given as arguments, if any.
        input_file: A file of texts; stdin is read when neither is given.
        run: Computes the results of any number of texts, in order.
        settings: How to read the file.
        kind: What each row of the file holds.

    Yields:
        Each text and its result, in order.
    """
    records = records_of(texts, input_file, settings, kind=kind)
    if texts or input_file is not None or not sys.stdin.isatty():
        yield from results_in_order(records, run)
        return
    tell("Type one text per line; press Ctrl-D to finish.")
    for record in records:
        yield from results_in_order([record], run)


def speed_of(meter: Meter) -> "Callable[[Progress], None]":
    """Return an observer that shows on a meter how much is done."""
    import time

    began = time.monotonic()

    def observe(progress: "Progress") -> None:
        speed = progress.tokens / max(time.monotonic() - began, 1e-9)
        meter.update(progress.texts, None, _amount(progress, speed))

    return observe


def _amount(progress: "Progress", tokens_per_second: float) -> str:
    amount = f"{counted(progress.texts, 'text')}, {short_count(progress.tokens)} tokens"
    return f"{amount}  {tokens_per_second:,.0f} tokens/s"


def results_in_order(
    records: Iterable[InputRow], run: Callable[[Iterable[Any]], Iterator[R]]
) -> Iterator[tuple[InputRow, R]]:
    """Pair results with their records; only a few records are held at a time."""
    waiting: deque[InputRow] = deque()

    def texts() -> Iterator[Given]:
        for record in records:
            waiting.append(record)
            yield record.given

    for result in run(texts()):
        yield waiting.popleft(), result


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
    from modernbert.inference.index_files import line_of

    if job.num_done:
        tell(f"going on after {counted(job.num_done, 'text')}")
    waiting = islice(reader, job.num_done, None)
    with Meter("computing") as meter, warnings_told():
        for record, result in results_in_order(waiting, run):
            job.add([line_of(values(record, result))])
            meter.update(job.num_done, None, counted(job.num_done, "text"))
