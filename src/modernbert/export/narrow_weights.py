"""A model's folder with its weights in another format, which every reader of safetensors loads."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from modernbert.errors import ConfigError, ExportError
from modernbert.files import updated_folder
from modernbert.kinds import CONFIG_FILE
from modernbert.model.config_file import find_model, read_config_file
from modernbert.model.weights import INDEX_FILE, WEIGHTS_FILE, read_headers, write_safetensors

WeightPrecision = Literal["float32", "bfloat16", "float16"]

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """What was written.

    largest_relative_change: of a weight that is not close to zero, by rounding.
    """

    folder: Path
    precision: WeightPrecision
    megabytes: float
    source_megabytes: float
    largest_relative_change: float


def export_weights(
    folder_or_hub_id: Path | str, output: Path | str, *, precision: WeightPrecision
) -> WeightsReport:
    """Write a model's folder again, of any kind, with weights in a precision.

    All other files come along. Weights in several files become one, and those of further steps,
    such as a dense layer after pooling, are converted too. Pickles are left out.

    output: a folder that is new, or another than the model's own.

    Raises:
        ExportError: weights that float16 cannot hold, or a folder that cannot be written.
        ModelFolderError: no such model, or one that cannot be used.
        ConfigError: no such precision.
    """
    if precision not in get_args(WeightPrecision):
        expected = ", ".join(get_args(WeightPrecision))
        raise ConfigError(f"precision: got {precision!r}, expected one of {expected}")
    source, target = find_model(folder_or_hub_id, weights=True), Path(output).expanduser()
    if target.resolve() == source.resolve():
        raise ExportError(f"{target}: is the model's own folder; take another for the output")
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
    """The folders that hold weights, within the source, and their files."""
    parts: dict[Path, list[Path]] = {}
    for path in sorted(source.rglob("*.safetensors")):
        folder = path.parent
        if (folder / CONFIG_FILE).is_file() and folder.relative_to(source) not in parts:
            files = {header.file for header in read_headers(folder)}
            parts[folder.relative_to(source)] = sorted(files)
    if not parts:
        read_headers(source)  # says what is missing
    for part in parts:
        if part == Path() or _is_model(source / part):
            read_config_file(source / part)
    return parts


def _is_model(folder: Path) -> bool:
    content = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    return isinstance(content, dict) and "model_type" in content


def _copy_others(source: Path, folder: Path) -> None:
    """All but weights, in whatever format."""
    left_out = {".safetensors", ".onnx", *_PICKLES}
    for path in sorted(source.rglob("*")):
        place = path.relative_to(source)
        is_hidden = any(part.startswith(".") for part in place.parts)
        if is_hidden or not path.is_file() or path.name == INDEX_FILE or path.suffix in left_out:
            continue
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / place)


def _convert(files: list[Path], folder: Path, precision: WeightPrecision) -> float:
    """Write the weights of some files into a folder, and the largest relative change."""
    dtype = getattr(torch, precision)
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= load_file(file)
    narrow = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
    if lost := [name for name, tensor in narrow.items() if not tensor.isfinite().all()]:
        if all(tensors[name].isfinite().all() for name in lost):
            raise ExportError(f"{lost[0]}: has weights beyond what {precision} holds")
        raise ExportError(f"{lost[0]}: has weights that are no numbers")
    write_safetensors(folder / WEIGHTS_FILE, narrow)
    config_file = folder / CONFIG_FILE
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config |= {key: precision for key in ("dtype", "torch_dtype") if _names_dtype(config, key)}
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    config_file.write_text(text, encoding="utf-8")
    return max((_relative_change(tensors[name], narrow[name]) for name in tensors), default=0.0)


def _names_dtype(config: Mapping[str, object], key: str) -> bool:
    """Whether the key belongs there: a model's config has it, that of a dense layer does not."""
    return key in config or "model_type" in config


def _relative_change(before: Tensor, after: Tensor) -> float:
    """Where a weight is at least a thousandth of the tensor's largest."""
    wide = before.float()
    counts = wide.abs() >= 1e-3 * wide.abs().max().clamp(min=1e-30)
    if not counts.any():
        return 0.0
    return float(((after.float() - wide).abs() / wide.abs())[counts].max())
