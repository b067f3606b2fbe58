"""The same model for other engines, each made once and kept in the cache.

- ONNX by torch's exporter, with free numbers of rows and columns;
- its int8 copy by ONNX Runtime's dynamic quantisation, a scale for each column of a weight;
- OpenVINO's int8: weights alone by NNCF (activations are then quantised as they come), and all of
  it with fixed scales from calibration, which is faster.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.models import Model

_EXAMPLE = (3, 150)
_CALIBRATION_ROWS, _CALIBRATION_TOKENS = 8, 256


def onnx_file(model: Model) -> Path:
    """model.onnx: input_ids and attention_mask to last_hidden_state."""
    return _kept(model.cache / "model.onnx", lambda path: _export(model, path))


def onnx_int8_file(model: Model) -> Path:
    """Dynamic quantisation of `onnx_file`."""

    def quantize(path: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(onnx_file(model), path, weight_type=QuantType.QInt8, per_channel=True)

    return _kept(model.cache / "int8.onnx", quantize)


def openvino_int8_weights(model: Model) -> Path:
    """Weights in int8, a scale for each column."""

    def compress(path: Path) -> None:
        import nncf
        import openvino

        read = openvino.Core().read_model(onnx_file(model))
        mode = nncf.CompressWeightsMode.INT8_SYM
        openvino.save_model(nncf.compress_weights(read, mode=mode), path, compress_to_fp16=False)

    return _kept(model.cache / "int8-weights.xml", compress)


def openvino_int8_static(model: Model) -> Path:
    """Weights and activations in int8, with the activations' scales fixed beforehand."""
    return _kept(model.cache / "int8-static.xml", lambda path: _calibrate(onnx_file(model), path))


class _HiddenStates(nn.Module):
    """transformers' model with two inputs and one output."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        from transformers import AutoModel

        read = AutoModel.from_pretrained(model.folder, attn_implementation="sdpa")
        self.model: nn.Module = read.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(rows, columns) each to (rows, columns, hidden_size)."""
        output = self.model(input_ids=input_ids, attention_mask=attention_mask)
        states: Tensor = output.last_hidden_state
        return states


def _export(model: Model, path: Path) -> None:
    rows, columns = torch.export.Dim("rows"), torch.export.Dim("columns")
    names = ("input_ids", "attention_mask")
    torch.onnx.export(
        _HiddenStates(model),
        _example(),
        path,
        input_names=list(names),
        output_names=["last_hidden_state"],
        dynamic_shapes={name: {0: rows, 1: columns} for name in names},
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _example() -> tuple[Tensor, Tensor]:
    mask = torch.ones(_EXAMPLE, dtype=torch.int64)
    mask[1, _EXAMPLE[1] // 2 :] = 0
    return torch.full(_EXAMPLE, 5), mask


def _calibrate(source: Path, path: Path) -> None:
    import nncf
    import openvino

    generator = np.random.default_rng(0)
    shape = (1, _CALIBRATION_TOKENS)
    mask = np.ones(shape, dtype=np.int64)
    rows: list[dict[str, Any]] = [
        {"input_ids": generator.integers(1_000, 30_000, shape), "attention_mask": mask}
        for _ in range(_CALIBRATION_ROWS)
    ]
    quantized = nncf.quantize(
        openvino.Core().read_model(source),
        nncf.Dataset(rows),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(rows),
    )
    openvino.save_model(quantized, path, compress_to_fp16=False)


def _kept(path: Path, make: Callable[[Path], None]) -> Path:
    """The file, made under another name first, so that what is there is whole.

    OpenVINO writes the numbers beside the .xml, in a .bin of the same name.
    """
    if not path.exists():
        partial = path.with_name(f"partial-{path.name}")
        make(partial)
        if partial.with_suffix(".bin").exists():
            partial.with_suffix(".bin").replace(path.with_suffix(".bin"))
        partial.replace(path)
    return path
