"""`modernbert export`: writes a model in the formats of other engines."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modernbert.cli.inference_options import Model, look_at
from modernbert.cli.options import AsJson, echo_json, example
from modernbert.cli.terminal import tell
from modernbert.errors import InputError

if TYPE_CHECKING:
    from modernbert.export.quantize import Int8Quality

app = typer.Typer(
    help="Export a model to ONNX or to another precision.",
    no_args_is_help=True,
    epilog=example("export onnx runs/labels/model -o onnx"),
)

ExportOutput = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="OUT", help="The folder to write to.", show_default=False
    ),
]


class WeightPrecision(StrEnum):
    """The number format that weights are stored in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@app.command(epilog=example("export onnx runs/labels/model -o onnx --int8"))
def onnx(
    model: Model,
    output: ExportOutput,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Also write a file with int8 weights, and measure its quality."
        ),
    ] = False,
    sample: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Texts to measure int8 on: JSON Lines, Parquet, or one text per line.",
            show_default="texts from Python's manual",
        ),
    ] = None,
    text_field: Annotated[
        str | None,
        typer.Option(help="The column of its texts.", show_default="found by usual names"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export a model to ONNX and check that it computes the same.

    OUT receives the model's settings and tokenizer, and onnx/model.onnx in float32 for batches of
    any shape. It may be the model's own folder.
    """
    look_at(model)
    if sample is not None and not int8:
        raise InputError("--sample: has no effect without --int8")
    if text_field is not None and sample is None:
        raise InputError("--text-field: has no effect without --sample")
    from modernbert.export.onnx_export import export_onnx

    texts = None if sample is None else _texts(sample, text_field)
    report = export_onnx(model, output, int8=int8, sample=texts)
    tell(f"{report.kind}: {report.folder}/onnx/model.onnx")
    tell(f"largest difference from the model on ragged batches: {report.largest_difference:.1e}")
    if report.int8 is not None:
        _tell_quality(report.int8)
    if as_json:
        echo_json(
            {
                "kind": report.kind,
                "outputs": report.outputs,
                "largest_difference": report.largest_difference,
                "int8": None if report.int8 is None else vars(report.int8),
            }
        )


@app.command(epilog=example("export safetensors runs/mine/model -o narrow"))
def safetensors(
    model: Model,
    output: ExportOutput,
    precision: Annotated[
        WeightPrecision, typer.Option("--precision", help="Number format to store the weights in.")
    ] = WeightPrecision.BFLOAT16,
    as_json: AsJson = False,
) -> None:
    """Copy a model's folder with its weights in another precision."""
    look_at(model)
    from modernbert.export.narrow_weights import export_weights

    report = export_weights(model, output, precision=precision.value)
    tell(f"{report.folder}: {report.source_megabytes} MB became {report.megabytes} MB")
    tell(f"largest relative change of a weight: {report.largest_relative_change:.1e}")
    if as_json:
        echo_json({**vars(report), "folder": str(report.folder)})


def _texts(sample: Path, text_field: str | None) -> list[str]:
    from modernbert.cli.text_input import TextInput
    from modernbert.data.settings import InputSettings

    settings = InputSettings(text_field=text_field, strict=True)

    return [record.text for record in TextInput(sample, settings)]


def _tell_quality(quality: "Int8Quality") -> None:
    tell(f"int8: {quality.float32_megabytes} MB became {quality.megabytes} MB")
    tell(
        f"int8: {quality.measure} with float32 {quality.mean:.4f} on average, "
        f"{quality.least:.4f} at least, over {quality.num_texts} texts"
    )
