"""Checkpoints: the whole state of a run in a folder that is verified before it is used.

    checkpoints/step-00000200/
        model.safetensors        weights and persistent buffers by name; a tied weight once
        optimizer.safetensors    optimizer state by parameter name, `decoder.bias.exp_avg`
        progress.json            the run's place: step, tokens, position
        manifest.json            size and sha256 of each file, the run's identity; sealed by a hash

A folder bears its name only once all of it is on the disk. There is no pickle anywhere.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import Optimizer

from modernbert.errors import CheckpointError
from modernbert.files import new_folder, remove_folder, remove_leftovers
from modernbert.training.run_folder import first_difference

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
FORMAT = 1
_FILES = ("model.safetensors", "optimizer.safetensors", "progress.json")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What `load_latest` found: the checkpoint's folder, its progress, and what it set aside."""

    folder: Path
    progress: dict[str, Any]
    warnings: tuple[str, ...] = ()


def folder_of(run_folder: Path, step: int) -> Path:
    """Where a run keeps the checkpoint of a step."""
    return run_folder / FOLDER / f"step-{step:08d}"


def folder_of_end(run_folder: Path, phase: str) -> Path:
    """Where a run keeps the last state of a phase that a later one starts from."""
    return run_folder / FOLDER / f"end-of-{phase}"


def save(
    folder: Path,
    module: nn.Module,
    optimizer: Optimizer,
    progress: Mapping[str, Any],
    identity: Mapping[str, Any],
) -> None:
    """Write a checkpoint to `folder`, which appears whole or not at all.

    progress: the run's place, as JSON values.
    identity: what makes the run this run; `load_latest` refuses another one's checkpoint.

    Raises:
        CheckpointError: the folder exists, or the disk is full or fails; nothing partial remains.
    """
    if folder.exists():
        raise CheckpointError(f"{folder}: exists already; a checkpoint is never overwritten")
    try:
        with new_folder(folder) as partial:
            _write_tensors(partial / _FILES[0], module_tensors(module))
            _write_tensors(partial / _FILES[1], optimizer_tensors(module, optimizer))
            (partial / _FILES[2]).write_text(json.dumps(dict(progress)) + "\n", encoding="utf-8")
            _write_manifest(partial, identity)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: could not be saved: {error}; earlier checkpoints are untouched: free some "
            "space and run the same command again"
        ) from error


def load_latest(
    run_folder: Path, module: nn.Module, optimizer: Optimizer, identity: Mapping[str, Any]
) -> Loaded | None:
    """Put the newest intact checkpoint into `module` and `optimizer`; None when there is none.

    Every file is checked against the manifest first. A damaged checkpoint is renamed to
    `*.damaged` and the one before it is taken. What killed saves left behind is removed.

    Raises:
        CheckpointError: only damaged checkpoints are left, or one is of another run.
    """
    parent = run_folder / FOLDER
    if not parent.is_dir():
        return None
    remove_leftovers(parent)
    warnings: list[str] = []
    for folder in reversed(_checkpoints(parent)):
        if (fault := find_fault(folder)) is None:
            progress = _load(folder, module, optimizer, identity)
            return Loaded(folder=folder, progress=progress, warnings=tuple(warnings))
        aside = _set_aside(folder)
        warnings.append(f"{folder.name} is damaged ({fault}); it is set aside as {aside.name}")
    if damaged := sorted(path.name for path in parent.glob("*.damaged*")):
        raise CheckpointError(
            f"{parent}: no usable checkpoint, only {', '.join(damaged)}; "
            "remove them to start the run from its beginning"
        )
    return None


def load(
    folder: Path, module: nn.Module, optimizer: Optimizer, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Put one checkpoint into `module` and `optimizer`, verified first; its progress.

    Raises:
        CheckpointError: it is damaged or of another run.
    """
    if fault := find_fault(folder):
        raise CheckpointError(f"{folder}: is damaged ({fault}) and cannot be started from")
    return _load(folder, module, optimizer, identity)


def newest_before(run_folder: Path, step: int) -> tuple[Path, int] | None:
    """The newest intact checkpoint of an earlier step, with its step; None without one."""
    for folder in reversed(_checkpoints(run_folder / FOLDER)):
        number = int(folder.name.removeprefix("step-"))
        if number < step and find_fault(folder) is None:
            return folder, number
    return None


def keep_newest(run_folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints of a run."""
    for folder in _checkpoints(run_folder / FOLDER)[:-keep]:
        remove_folder(folder)


def find_fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, in a few words; None when all are as written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        seal = manifest.pop("seal")
    except OSError:
        return f"{MANIFEST} is missing or cannot be read"
    except (ValueError, KeyError, AttributeError, TypeError):
        return f"{MANIFEST} is no manifest"
    if seal != _seal(manifest):
        return f"{MANIFEST} was changed"
    for name in _FILES:
        expected = manifest["files"].get(name)
        if not (folder / name).is_file():
            return f"{name} is missing"
        try:
            found = _fingerprint(folder / name)
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        if found != expected:
            return f"{name} differs from its hash"
    return None


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The parameters, tied ones once, and the persistent buffers of a module, by name."""
    parameters = dict(module.named_parameters())
    with_ties = dict(module.named_parameters(remove_duplicate=False))
    state = module.state_dict(keep_vars=True)
    buffers = {name: tensor for name, tensor in state.items() if name not in with_ties}
    return {**parameters, **buffers}


def optimizer_tensors(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `parameter name.state name`; every state must be a tensor."""
    return {
        f"{name}.{key}": tensor
        for name, parameter in module.named_parameters()
        for key, tensor in optimizer.state.get(parameter, {}).items()
    }


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(plain, path)
    path.chmod(0o644)  # safetensors makes it readable by its owner alone


def _write_manifest(folder: Path, identity: Mapping[str, Any]) -> None:
    manifest = {
        "format": FORMAT,
        "files": {name: _fingerprint(folder / name) for name in _FILES},
        "identity": dict(identity),
    }
    sealed = {**manifest, "seal": _seal(manifest)}
    (folder / MANIFEST).write_text(json.dumps(sealed, indent=1), encoding="utf-8")


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _seal(manifest: Mapping[str, Any]) -> str:
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _checkpoints(parent: Path) -> list[Path]:
    """The folders under their final name, oldest first."""
    found = [path for path in parent.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def _set_aside(folder: Path) -> Path:
    aside = folder.with_name(f"{folder.name}.damaged")
    number = 1
    while aside.exists():
        number += 1
        aside = folder.with_name(f"{folder.name}.damaged-{number}")
    return folder.rename(aside)


def _load(
    folder: Path, module: nn.Module, optimizer: Optimizer, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Copy a verified checkpoint into place and give its progress."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest["format"] != FORMAT:
        raise CheckpointError(
            f"{folder}: got checkpoint format {manifest['format']}, this version reads {FORMAT}"
        )
    if difference := first_difference(manifest["identity"], identity):
        raise CheckpointError(f"{folder}: is of another run: {difference}")
    _load_module(folder, module)
    _load_optimizer(folder, module, optimizer)
    progress: dict[str, Any] = json.loads((folder / _FILES[2]).read_text(encoding="utf-8"))
    return progress


@torch.no_grad()
def _load_module(folder: Path, module: nn.Module) -> None:
    stored = safetensors.torch.load_file(folder / _FILES[0])
    tensors = module_tensors(module)
    if unmatched := sorted(stored.keys() ^ tensors.keys()):
        raise CheckpointError(f"{folder}: does not fit the module: {unmatched[0]!r} is in one only")
    for name, tensor in tensors.items():
        if stored[name].shape != tensor.shape or stored[name].dtype != tensor.dtype:
            raise CheckpointError(
                f"{folder}: {name} is {tuple(stored[name].shape)} {stored[name].dtype}, "
                f"the module's {tuple(tensor.shape)} {tensor.dtype}"
            )
        tensor.copy_(stored[name])


def _load_optimizer(folder: Path, module: nn.Module, optimizer: Optimizer) -> None:
    stored = safetensors.torch.load_file(folder / _FILES[1])
    parameters = dict(module.named_parameters())
    optimizer.state.clear()
    for key, tensor in stored.items():
        name, _, state_name = key.rpartition(".")
        if name not in parameters:
            raise CheckpointError(f"{folder}: holds optimizer state of an unknown {name!r}")
        parameter = parameters[name]
        if tensor.shape == parameter.shape:
            # The parameter's own memory layout: sums over it must go in the same order as before.
            tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        optimizer.state[parameter][state_name] = tensor
