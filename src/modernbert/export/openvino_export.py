"""Exporting a model folder to OpenVINO's intermediate representation.

    OUT/config.json, tokenizer.json, ...                            as in the model's folder
    OUT/openvino/openvino_model.xml, .bin                           float32, of any shape
    OUT/openvino/openvino_model_qint8_quantized.xml, .bin           int8, on request
    OUT/openvino/export.json                                        what was measured

sentence-transformers and optimum-intel expect the files in these places.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modernbert.export.formats import FORMATS
from modernbert.export.quality import (
    ExportReport,
    Quality,
    batches,
    largest_difference,
    measure_quality,
    megabytes,
    sample_texts,
)
from modernbert.export.source import (
    INPUTS,
    ExportSource,
    example_inputs,
    exported_folder,
    open_source,
    quiet,
)
from modernbert.reading import user_path

OPENVINO_FOLDER = "openvino"
MODEL_FILE = "openvino_model.xml"
QUANTIZED_FILE = "openvino_model_qint8_quantized.xml"


class OpenVinoSession:
    """A model that OpenVINO runs on the CPU, in the precision of its file."""

    def __init__(self, file: Path) -> None:
        import openvino

        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._model: Any = openvino.Core().compile_model(file, "CPU", settings)

    def __call__(self, token_ids: Tensor, present: Tensor) -> list[np.ndarray]:
        """Compute all outputs for ids and a mask of tokens, (rows, columns) each."""
        results = self._model(_feed(token_ids, present))
        return [results[output].copy() for output in self._model.outputs]


def export_openvino(
    folder_or_hub_id: Path | str,
    output: Path | str,
    *,
    int8: bool = False,
    sample: Sequence[str] | None = None,
) -> ExportReport:
    """Export a model to OpenVINO, compare it with the model, and keep it only if they agree.

    Args:
        folder_or_hub_id: The model, in a folder or on the hub.
        output: The folder to write to, which may be the model's own; its other files stay.
        int8: Whether to write a second file in int8, made by NNCF, and measure its quality. The
            scales of its activations are fixed on the sample.
        sample: The texts to fix the scales and measure on; by default, passages of Python's
            manual.

    Returns:
        What was written, with the measurements.

    Raises:
        ExportError: A package is missing, the model cannot be exported, or the results differ.
        ModelFolderError: There is no such model, or it cannot be used.
        TokenizerError: The model has no tokenizer, or it cannot be used.
    """
    FORMATS["openvino"].require()
    source, target = open_source(folder_or_hub_id), user_path(output)
    texts = sample_texts(sample) if int8 else []
    with exported_folder(source, target, OPENVINO_FOLDER) as place:
        file = place / MODEL_FILE
        _convert(source, file)
        report = ExportReport(
            folder=target,
            file=source.place / OPENVINO_FOLDER / MODEL_FILE,
            kind=source.kind,
            outputs=source.model.outputs,
            largest_difference=largest_difference(OpenVinoSession(file), source.model),
            int8=_quantize(source, file, place / QUANTIZED_FILE, texts) if int8 else None,
        )
        report.store(place, FORMATS["openvino"].packages)
    return report


def _convert(source: ExportSource, file: Path) -> None:
    import openvino

    model, inputs, shapes = example_inputs(source.model)
    with quiet(), torch.no_grad():
        converted = openvino.convert_model(
            torch.export.export(model, inputs, dynamic_shapes=shapes)
        )
        names = (*INPUTS, *source.model.outputs)
        for port, name in zip((*converted.inputs, *converted.outputs), names, strict=True):
            port.get_tensor().set_names({name})
        openvino.save_model(converted, file, compress_to_fp16=False)


def _quantize(source: ExportSource, file: Path, quantized: Path, texts: Sequence[str]) -> Quality:
    """Write a copy whose products are of int8 numbers, and compare the two on some texts."""
    import nncf
    import openvino

    rows = [_feed(*batch) for batch in batches(source, texts, at_once=1)]
    with quiet():
        narrow = nncf.quantize(
            openvino.Core().read_model(file),
            nncf.Dataset(rows),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(rows),
        )
        openvino.save_model(narrow, quantized, compress_to_fp16=False)
    runs = OpenVinoSession(file), OpenVinoSession(quantized)
    return measure_quality(source, *runs, texts, (megabytes(file), megabytes(quantized)))


def _feed(token_ids: Tensor, present: Tensor) -> dict[str, np.ndarray]:
    return dict(zip(INPUTS, (token_ids.numpy(), present.long().numpy()), strict=True))
