"""`modernbert export`: writes a model for other programs; `modernbert push`: uploads a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from modernbert.cli.inference import Model, look_at
from modernbert.cli.options import (
    AsJson,
    argument,
    echo_json,
    example,
    takes_revision,
    takes_settings,
)
from modernbert.cli.terminal import tell
from modernbert.errors import InputError
from modernbert.export.formats import FORMATS, Format

app = typer.Typer(
    help="Export a model as " + ", ".join(list(FORMATS)[:-1]) + f" or {list(FORMATS)[-1]}.",
    no_args_is_help=True,
    epilog=example("export onnx runs/labels/model -o onnx"),
)

ExportOutput = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="OUT", help="The folder to write to.", show_default=False
    ),
]


def _list(asked: bool) -> None:
    if asked:
        typer.echo("\n".join(line for each in FORMATS.values() for line in each.lines()))
        raise typer.Exit


@app.callback()
def _options(
    _shown: Annotated[
        bool,
        typer.Option(
            "--list",
            callback=_list,
            is_eager=True,
            help="Show which engines read each format and which models it can hold, then exit.",
        ),
    ] = False,
) -> None:
    pass


def _verb(form: Format) -> Callable[..., Any]:
    """Make the command that writes a format, with an option for each of its settings."""

    def export(model: str, output: Path, settings: Any, as_json: bool = False) -> None:
        look_at(model, *form.kinds)
        report = form.write()(model, output, **_arguments(form, settings))
        for line in report.lines():
            tell(line)
        if as_json:
            echo_json(report.content())

    export.__doc__ = form.about
    export.__annotations__ = {
        "model": Model,
        "output": ExportOutput,
        "settings": form.settings,
        "as_json": AsJson,
        "return": None,
    }
    return takes_revision(takes_settings(export))


def _arguments(form: Format, settings: Any) -> dict[str, Any]:
    """Return what the writer takes: the settings, with the texts of the sample."""
    arguments = dict(vars(settings))
    if not form.takes_sample:
        return arguments
    sample, text_field = arguments["sample"], arguments.pop("text_field")
    copies = [name for name in ("int8", "float16") if name in arguments]
    if sample is not None and copies and not any(arguments[name] for name in copies):
        wanted = " or ".join(f"--{name}" for name in copies)
        raise InputError(f"--sample: has no effect without {wanted}")
    if text_field is not None and sample is None:
        raise InputError("--text-field: has no effect without --sample")
    return {**arguments, "sample": None if sample is None else _texts(sample, text_field)}


def _texts(sample: Path, text_field: str | None) -> list[str]:
    from modernbert.cli.text_input import TextInput
    from modernbert.data.settings import InputSettings

    settings = InputSettings(text_field=text_field, strict=True)
    return [record.text for record in TextInput(sample, settings)]


for _form in FORMATS.values():
    app.command(_form.name, epilog=example(f"export {_form.name} runs/mine/model -o exported"))(
        _verb(_form)
    )


def push(
    folder: Annotated[
        Path,
        argument("FOLDER", "Folder of a model, a tokenizer, an export, token shards or an index."),
    ],
    hub_id: Annotated[str, argument("OWNER/NAME", "The repository on the hub.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private if it is new.")
    ] = False,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Commit message.", show_default=False)
    ] = None,
) -> None:
    """Push a folder to the hub.

    Its README.md becomes the model card. A folder that holds pickles or lacks a README.md is
    refused before anything is sent.
    """
    from modernbert.hub import push_folder

    tell(f"pushed to {push_folder(folder, hub_id, private=private, message=message)}")
