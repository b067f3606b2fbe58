"""A model folder with its weights in another precision, which every safetensors reader loads."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from modernbert.errors import ConfigError, ExportError
from modernbert.files import updated_folder
from modernbert.json_files import read_object
from modernbert.kinds import CONFIG_FILE
from modernbert.model.config_file import find_model, read_config_file
from modernbert.model.config_writer import COMPUTED_IN
from modernbert.model.weights import INDEX_FILE, WEIGHTS_FILE, read_headers, write_safetensors
from modernbert.reading import user_path

WeightPrecision = Literal["float32", "bfloat16", "float16"]

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """What was written.

    Attributes:
        folder: The folder that was written.
        precision: The precision of its weights.
        megabytes: The size of the weights, in MB of 10^6 bytes.
        source_megabytes: The size of the model's own weights, in MB.
        largest_relative_change: The largest relative change of a weight by rounding, of weights
            that are not close to zero.
    """

    folder: Path
    precision: WeightPrecision
    megabytes: float
    source_megabytes: float
    largest_relative_change: float

    def lines(self) -> Iterator[str]:
        yield f"{self.folder}: {self.source_megabytes} MB became {self.megabytes} MB"
        yield f"largest relative change of a weight: {self.largest_relative_change:.1e}"

    def content(self) -> dict[str, Any]:
        return {**vars(self), "folder": str(self.folder)}


def export_weights(
    folder_or_hub_id: Path | str, output: Path | str, *, precision: WeightPrecision
) -> WeightsReport:
    """Copy a model folder of any kind, with its weights in another precision.

    All other files are copied. Weights in several files become one file, and weights of further
    modules, such as a dense layer after pooling, are converted too. Pickles are left out.

    Only the storage is narrower: config.json says float32, so that other libraries compute in it.

    Args:
        folder_or_hub_id: The model, in a folder or on the hub.
        output: The folder to write to, which must not be the model's own.
        precision: The precision of the new weights.

    Returns:
        What was written.

    Raises:
        ExportError: The precision cannot represent a weight, or the folder cannot be written.
        ModelFolderError: There is no such model, or it cannot be used.
        ConfigError: There is no such precision.
    """
    if precision not in get_args(WeightPrecision):
        expected = ", ".join(get_args(WeightPrecision))
        raise ConfigError(f"precision: got {precision!r}, expected one of {expected}")
    source, target = find_model(folder_or_hub_id, weights=True), user_path(output)
    if target.resolve() == source.resolve():
        raise ExportError(f"{target}: is the model's own folder; choose another output folder")
    parts = _parts(source)
    changes = [0.0]
    try:
        with updated_folder(target) as partial:
            _copy_others(source, partial)
            for part, files in parts.items():
                (partial / part).mkdir(parents=True, exist_ok=True)
                changes.append(_convert(files, partial / part, precision))
            written = sum(path.stat().st_size for path in partial.rglob("*.safetensors"))
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{target}: cannot be written: {error}") from None
    read = sum(file.stat().st_size for files in parts.values() for file in files)
    return WeightsReport(
        folder=target,
        precision=precision,
        megabytes=round(written / 1e6, 1),
        source_megabytes=round(read / 1e6, 1),
        largest_relative_change=max(changes),
    )


def _parts(source: Path) -> dict[Path, list[Path]]:
    """Find the folders within the source that hold weights, and their files."""
    parts: dict[Path, list[Path]] = {}
    for path in sorted(source.rglob("*.safetensors")):
        folder = path.parent
        if (folder / CONFIG_FILE).is_file() and folder.relative_to(source) not in parts:
            files = {header.file for header in read_headers(folder)}
            parts[folder.relative_to(source)] = sorted(files)
    if not parts:
        read_headers(source)  # raises an error that says what is missing
    for part in parts:
        if part == Path() or "model_type" in read_object(source / part / CONFIG_FILE):
            read_config_file(source / part)
    return parts


def _copy_others(source: Path, folder: Path) -> None:
    """Copy all files but weights, which may be in any format."""
    left_out = {".safetensors", ".onnx", *_PICKLES}
    for path in sorted(source.rglob("*")):
        place = path.relative_to(source)
        is_hidden = any(part.startswith(".") for part in place.parts)
        if is_hidden or not path.is_file() or path.name == INDEX_FILE or path.suffix in left_out:
            continue
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / place)


def _convert(files: list[Path], folder: Path, precision: WeightPrecision) -> float:
    """Write the weights of some files into a folder; return the largest relative change."""
    dtype = getattr(torch, precision)
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= load_file(file)
    narrow = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
    if lost := [name for name, tensor in narrow.items() if not tensor.isfinite().all()]:
        if all(tensors[name].isfinite().all() for name in lost):
            raise ExportError(f"{lost[0]}: has weights that are too large for {precision}")
        raise ExportError(f"{lost[0]}: has weights that are NaN or infinite")
    write_safetensors(folder / WEIGHTS_FILE, narrow)
    config_file = folder / CONFIG_FILE
    config = read_object(config_file)
    config |= {key: COMPUTED_IN for key in ("dtype", "torch_dtype") if _names_dtype(config, key)}
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    config_file.write_text(text, encoding="utf-8")
    return max((_relative_change(tensors[name], narrow[name]) for name in tensors), default=0.0)


def _names_dtype(config: Mapping[str, object], key: str) -> bool:
    """Return whether a config names a dtype: a model's does, that of a dense layer does not."""
    return key in config or "model_type" in config


def _relative_change(before: Tensor, after: Tensor) -> float:
    """Return the largest relative change, of weights above a thousandth of the largest."""
    wide = before.float()
    counts = wide.abs() >= 1e-3 * wide.abs().max().clamp(min=1e-30)
    if not counts.any():
        return 0.0
    return float(((after.float() - wide).abs() / wide.abs())[counts].max())
