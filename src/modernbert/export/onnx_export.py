"""Exporting a model folder to ONNX, for ONNX Runtime and the libraries that use it.

    OUT/config.json, tokenizer.json, ...    as in the model's folder
    OUT/onnx/model.onnx                     float32, any number of rows and columns
    OUT/onnx/model_quantized.onnx           int8 weights, on request
    OUT/onnx/export.json                    what was measured

sentence-transformers, fastembed and text-embeddings-inference expect the files in these places.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from modernbert.errors import ExportError
from modernbert.export.padded_model import INPUTS, PaddedModel
from modernbert.export.quantize import Int8Quality, default_sample, quantize
from modernbert.export.source import (
    NEEDED,
    ExportSource,
    copy_settings,
    open_source,
    quiet,
    require_packages,
)
from modernbert.export.verify import largest_difference
from modernbert.files import updated_folder
from modernbert.reading import user_path

ONNX_FOLDER = "onnx"
MODEL_FILE = "model.onnx"
QUANTIZED_FILE = "model_quantized.onnx"
REPORT_FILE = "export.json"

# LayerNormalization exists since 17; 18 is the oldest that torch's exporter writes.
OPSET = 18
_EXAMPLE = (3, 150)
# The largest size of a protobuf message, less some room for the graph.
_MAX_BYTES = (1 << 31) - (1 << 24)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was written, and how it compares with the model.

    Attributes:
        folder: The folder that was written.
        kind: transformers' name of the model's class.
        outputs: The names of the outputs.
        opset: The version of the ONNX operators.
        largest_difference: The largest difference from the model's own outputs, over ragged
            batches.
        int8: The quality of the quantized file, if one was requested.
    """

    folder: Path
    kind: str
    outputs: tuple[str, ...]
    opset: int
    largest_difference: float
    int8: Int8Quality | None = None


def export_onnx(
    folder_or_hub_id: Path | str,
    output: Path | str,
    *,
    int8: bool = False,
    sample: Sequence[str] | None = None,
) -> ExportReport:
    """Export a model to ONNX, compare it with the model, and keep it only if they agree.

    Args:
        folder_or_hub_id: The model.
        output: The folder to write to, which may be the model's own; its other files stay.
        int8: Whether to write a second file with int8 weights, with a scale per column, and
            measure its quality.
        sample: The texts to measure it on; by default, passages of Python's manual.

    Returns:
        What was written, with the measurements.

    Raises:
        ExportError: A package is missing, the model cannot be exported, or the results differ.
        ModelFolderError: There is no such model, or it cannot be used.
        TokenizerError: The model has no tokenizer, or it cannot be used.
    """
    require_packages()
    source = open_source(folder_or_hub_id)
    target = user_path(output)
    texts = list(sample) if sample is not None else default_sample() if int8 else []
    if int8 and not texts:
        raise ExportError("sample: got no text, expected some to measure int8 on")
    try:
        with updated_folder(target) as partial:
            if target.resolve() != source.folder.resolve():
                copy_settings(source, partial)
            place = partial / source.encoder_folder.relative_to(source.folder) / ONNX_FOLDER
            place.mkdir(parents=True, exist_ok=True)
            report = _write(source, place, target, texts if int8 else None)
            (place / REPORT_FILE).write_text(_as_json(report), encoding="utf-8")
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error}") from None
    return report


def _write(
    source: ExportSource, place: Path, target: Path, texts: Sequence[str] | None
) -> ExportReport:
    """Write the files of the folder `onnx`."""
    file = place / MODEL_FILE
    _trace(source, file)
    difference = largest_difference(file, source.model)
    quality = None if texts is None else quantize(source, file, place / QUANTIZED_FILE, texts)
    return ExportReport(
        folder=target,
        kind=source.kind,
        outputs=source.model.outputs,
        opset=OPSET,
        largest_difference=difference,
        int8=quality,
    )


def _trace(source: ExportSource, file: Path) -> None:
    rows, columns = torch.export.Dim("rows"), torch.export.Dim("columns")
    ids = torch.full(_EXAMPLE, source.model.config.cls_token_id)
    mask = torch.ones(_EXAMPLE, dtype=torch.int64)
    mask[1, _EXAMPLE[1] // 2 :] = 0
    num_bytes = 4 * sum(parameter.numel() for parameter in source.model.parameters())
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            PaddedModel(source.model).eval(),
            (ids, mask),
            input_names=list(INPUTS),
            output_names=list(source.model.outputs),
            dynamic_shapes={name: {0: rows, 1: columns} for name in INPUTS},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(file, external_data=num_bytes > _MAX_BYTES)


def _as_json(report: ExportReport) -> str:
    packages = {name: version(name) for name in ("torch", *NEEDED)}
    content = {**asdict(report), "packages": packages}
    del content["folder"]
    return json.dumps(content, indent=2) + "\n"
