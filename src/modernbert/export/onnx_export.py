"""Exporting a model folder to ONNX, for ONNX Runtime and the libraries that use it.

    OUT/config.json, tokenizer.json, ...    as in the model's folder
    OUT/onnx/model.onnx                     float32, any number of rows and columns
    OUT/onnx/model_quantized.onnx           int8 weights, on request
    OUT/onnx/model_fp16.onnx                float16, on request
    OUT/onnx/export.json                    what was measured

sentence-transformers, fastembed, text-embeddings-inference and transformers.js expect the files in
these places.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modernbert.export.formats import FORMATS
from modernbert.export.quality import (
    FLOAT16_TOLERANCE,
    ExportReport,
    Quality,
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

ONNX_FOLDER = "onnx"
MODEL_FILE = "model.onnx"
QUANTIZED_FILE = "model_quantized.onnx"
FLOAT16_FILE = "model_fp16.onnx"

# LayerNormalization exists since 17; 18 is the oldest that torch's exporter writes.
OPSET = 18
# The largest size of a protobuf message, less some room for the graph.
_MAX_BYTES = (1 << 31) - (1 << 24)


class OnnxSession:
    """An ONNX file that ONNX Runtime runs on the CPU."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        self._session: Any = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, token_ids: Tensor, present: Tensor) -> list[np.ndarray]:
        """Compute all outputs for ids and a mask of tokens, (rows, columns) each."""
        feed = {"input_ids": token_ids.numpy(), "attention_mask": present.long().numpy()}
        outputs: list[np.ndarray] = self._session.run(None, feed)
        return outputs


def export_onnx(
    folder_or_hub_id: Path | str,
    output: Path | str,
    *,
    int8: bool = False,
    float16: bool = False,
    sample: Sequence[str] | None = None,
) -> ExportReport:
    """Export a model to ONNX, compare it with the model, and keep it only if they agree.

    Args:
        folder_or_hub_id: The model, in a folder or on the hub.
        output: The folder to write to, which may be the model's own; its other files stay.
        int8: Whether to write a second file with int8 weights, with a scale per column, and
            measure its quality.
        float16: Whether to write another file in float16, for GPUs and browsers, and measure its
            quality. Its outputs are float32.
        sample: The texts to measure on; by default, passages of Python's manual.

    Returns:
        What was written, with the measurements.

    Raises:
        ExportError: A package is missing, the model cannot be exported, or the results differ.
        ModelFolderError: There is no such model, or it cannot be used.
        TokenizerError: The model has no tokenizer, or it cannot be used.
    """
    FORMATS["onnx"].require()
    source, target = open_source(folder_or_hub_id), user_path(output)
    texts = sample_texts(sample) if int8 or float16 else []
    with exported_folder(source, target, ONNX_FOLDER) as place:
        file = place / MODEL_FILE
        _trace(source, file)
        report = ExportReport(
            folder=target,
            file=source.place / ONNX_FOLDER / MODEL_FILE,
            kind=source.kind,
            outputs=source.model.outputs,
            opset=OPSET,
            largest_difference=largest_difference(OnnxSession(file), source.model),
            int8=quantize(source, file, place / QUANTIZED_FILE, texts) if int8 else None,
            float16=_halve(source, file, place / FLOAT16_FILE, texts) if float16 else None,
        )
        report.store(place, FORMATS["onnx"].packages)
    return report


def _trace(source: ExportSource, file: Path) -> None:
    model, inputs, shapes = example_inputs(source.model)
    num_bytes = 4 * sum(parameter.numel() for parameter in source.model.parameters())
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            model,
            inputs,
            input_names=list(INPUTS),
            output_names=list(source.model.outputs),
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(file, external_data=num_bytes > _MAX_BYTES)


def quantize(source: ExportSource, file: Path, quantized: Path, texts: Sequence[str]) -> Quality:
    """Write a copy of an ONNX file with int8 weights, and compare the two on some texts.

    The weights have one fixed scale per column. The scale of activations is computed in each
    product, one for the whole batch, so a text's result depends slightly on the other texts of its
    batch.
    """
    from onnxruntime import quantization

    with quiet():
        quantization.quantize_dynamic(
            file,
            quantized,
            # Embeddings are looked up and not multiplied, so int8 would only lose precision.
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            use_external_data_format=_has_data_beside(file),
        )
    runs = OnnxSession(file), OnnxSession(quantized)
    return measure_quality(source, *runs, texts, (megabytes(file), megabytes(quantized)))


def _halve(source: ExportSource, file: Path, halved: Path, texts: Sequence[str]) -> Quality:
    """Write a copy of an ONNX file in float16, verify it, and compare the two on some texts."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    graph = onnx.load(file)
    angles = list(_before_angles(graph.graph.node))
    with quiet():
        graph = convert_float_to_float16(
            graph, keep_io_types=True, disable_shape_infer=True, node_block_list=angles
        )
        onnx.save(
            graph,
            halved,
            save_as_external_data=_has_data_beside(file),
            location=f"{halved.name}.data",
        )
    largest_difference(OnnxSession(halved), source.model, tolerance=FLOAT16_TOLERANCE)
    runs = OnnxSession(file), OnnxSession(halved)
    return measure_quality(source, *runs, texts, (megabytes(file), megabytes(halved)))


def _before_angles(nodes: Sequence[Any]) -> Iterator[str]:
    """Yield the nodes that compute angles: float16 has no integers above 2,048."""
    makers = {output: node for node in nodes for output in node.output}
    waiting = [node for node in nodes if node.op_type in ("Cos", "Sin")]
    seen: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node.name not in seen:
            seen.add(node.name)
            yield node.name
            waiting += [makers[each] for each in node.input if each in makers]


def _has_data_beside(file: Path) -> bool:
    return file.with_name(f"{file.name}.data").exists()
