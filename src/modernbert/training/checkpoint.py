"""Checkpoints: the whole state of a run in a folder that is verified before it is used.

    checkpoints/step-00000200/
        model.safetensors        weights and persistent buffers by name; a tied weight once
        optimizer.safetensors    optimizer state by parameter name, `decoder.bias.exp_avg`
        progress.json            the run's place: step, tokens, position
        manifest.json            size and sha256 of each file, the run's identity; sealed by a hash

A folder bears its name only once all of it is on the disk and was read back. There is no pickle
anywhere. It is the same for any number of processes: tensors in shards are gathered to process 0.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from modernbert import hashes
from modernbert.errors import CheckpointError
from modernbert.files import new_folder, remove_folder, remove_leftovers
from modernbert.hashes import FileHash
from modernbert.json_files import parse_foreign, read_object
from modernbert.training.distributed import ALONE, Group
from modernbert.training.run_folder import first_difference
from modernbert.training.tensors import fill, gathered, write_tensors

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
FORMAT = 2
_FILES = ("model.safetensors", "optimizer.safetensors", "progress.json")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What `load_latest` found: the checkpoint's folder, its progress, and what it set aside."""

    folder: Path
    progress: dict[str, Any]
    warnings: tuple[str, ...] = ()


def folder_of(run_folder: Path, step: int) -> Path:
    """Return where a run keeps the checkpoint of a step."""
    return run_folder / FOLDER / f"step-{step:08d}"


def folder_of_end(run_folder: Path, phase: str) -> Path:
    """Return where a run keeps the last state of a phase from which a later one starts."""
    return run_folder / FOLDER / f"end-of-{phase}"


def save(
    folder: Path,
    module: nn.Module,
    optimizer: Optimizer,
    progress: Mapping[str, Any],
    identity: Mapping[str, Any],
    group: Group = ALONE,
) -> None:
    """Write a checkpoint, which appears whole or not at all; all processes wait for it.

    Args:
        folder: The folder of the new checkpoint.
        module: The module to save.
        optimizer: The optimizer to save.
        progress: The run's place, as JSON values.
        identity: What the weights depend on; `load_latest` refuses a checkpoint of another run.
        group: The processes that train together.

    Raises:
        CheckpointError: The folder exists, or the disk is full or fails; nothing partial remains.
    """
    files = {
        file: gathered(tensors, group) for file, tensors in tensors_of(module, optimizer).items()
    }
    group.first(lambda: write(folder, files, progress, identity))


def tensors_of(module: nn.Module, optimizer: Optimizer) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of each file of a checkpoint, by their names in it."""
    return {
        _FILES[0]: module_tensors(module),
        _FILES[1]: optimizer_tensors(module, optimizer),
    }


def write(
    folder: Path,
    files: Mapping[str, Mapping[str, Tensor]],
    progress: Mapping[str, Any],
    identity: Mapping[str, Any],
) -> None:
    """Write a checkpoint and read it back before it gets its name.

    Args:
        folder: The folder of the new checkpoint.
        files: The tensors of each file, as `tensors_of` gives them, contiguous and on the CPU.
        progress: The run's place, as JSON values.
        identity: As in `save`.

    Raises:
        CheckpointError: As in `save`.
    """
    if folder.exists():
        raise CheckpointError(f"{folder}: exists already; a checkpoint is never overwritten")
    try:
        with new_folder(folder) as partial:
            fingerprints = {
                name: write_tensors(partial / name, tensors) for name, tensors in files.items()
            }
            (partial / _FILES[2]).write_text(json.dumps(dict(progress)) + "\n", encoding="utf-8")
            fingerprints[_FILES[2]] = asdict(FileHash.of(partial / _FILES[2]))
            _write_manifest(partial, fingerprints, identity)
            if fault := find_fault(partial):
                raise OSError(f"{fault} after it was written")
    except OSError as error:
        raise CheckpointError(
            f"{folder}: could not be saved: {error}; earlier checkpoints are untouched: free some "
            "space and run the same command again"
        ) from error


def load_latest(
    run_folder: Path,
    module: nn.Module,
    optimizer: Optimizer,
    identity: Mapping[str, Any],
    group: Group = ALONE,
) -> Loaded | None:
    """Load the newest intact checkpoint into `module` and `optimizer`, if there is one.

    Every file is first checked against the manifest. A damaged checkpoint is renamed to
    `*.damaged`, and the one before it is used. What killed saves left behind is removed. Process 0
    does all of this and sends the others their tensors, so a checkpoint is the same for any number
    of processes, sharded or not.

    Args:
        run_folder: The folder of the run.
        module: The module to load into.
        optimizer: The optimizer to load into.
        identity: As in `save`.
        group: The processes that train together.

    Returns:
        What was loaded, or None if there is no checkpoint.

    Raises:
        CheckpointError: Only damaged checkpoints are left, or one belongs to another run.
    """
    found = group.first(lambda: _find_latest(run_folder / FOLDER))
    if found["folder"] is None:
        return None
    folder = Path(found["folder"])
    progress = _load(folder, module, optimizer, identity, group)
    return Loaded(folder=folder, progress=progress, warnings=tuple(found["warnings"]))


def load(
    folder: Path,
    module: nn.Module,
    optimizer: Optimizer,
    identity: Mapping[str, Any],
    group: Group = ALONE,
) -> dict[str, Any]:
    """Verify one checkpoint and load it into `module` and `optimizer`; return its progress.

    Raises:
        CheckpointError: It is damaged, or belongs to another run.
    """

    def check() -> None:
        if fault := find_fault(folder):
            raise CheckpointError(f"{folder}: is damaged ({fault}) and cannot be started from")

    group.first(check)
    return _load(folder, module, optimizer, identity, group)


def newest_before(run_folder: Path, step: int) -> tuple[Path, int] | None:
    """Return the newest intact checkpoint before a step, with its own step, or None."""
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
    """Say what is wrong with a checkpoint's files, in a few words; None if nothing is."""
    if not (folder / MANIFEST).is_file():
        return f"{MANIFEST} is missing or cannot be read"
    try:
        manifest = read_object(folder / MANIFEST, CheckpointError)
        seal, where = manifest.pop("seal"), str(folder / MANIFEST)
        files = {
            name: parse_foreign(FileHash, manifest["files"][name], where, error=CheckpointError)
            for name in _FILES
        }
    except (CheckpointError, KeyError, AttributeError, TypeError):
        return f"{MANIFEST} is no manifest"
    if seal != _seal(manifest):
        return f"{MANIFEST} was changed"
    for name, expected in files.items():
        if fault := hashes.find_fault(folder / name, expected):
            return f"{name} {fault}"
    return None


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's parameters, tied ones once, and persistent buffers, by name."""
    parameters = dict(module.named_parameters())
    with_ties = dict(module.named_parameters(remove_duplicate=False))
    state = module.state_dict(keep_vars=True)
    buffers = {name: tensor for name, tensor in state.items() if name not in with_ties}
    return {**parameters, **buffers}


def optimizer_tensors(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as `parameter name.state name`; every state must be a tensor."""
    return {
        f"{name}.{key}": tensor
        for name, parameter in module.named_parameters()
        for key, tensor in optimizer.state.get(parameter, {}).items()
    }


def _write_manifest(
    folder: Path, fingerprints: Mapping[str, Any], identity: Mapping[str, Any]
) -> None:
    manifest = {"format": FORMAT, "files": fingerprints, "identity": dict(identity)}
    sealed = {**manifest, "seal": _seal(manifest)}
    (folder / MANIFEST).write_text(json.dumps(sealed, indent=1), encoding="utf-8")


def _seal(manifest: Mapping[str, Any]) -> str:
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _checkpoints(parent: Path) -> list[Path]:
    """Return the folders under their final name, oldest first."""
    found = [path for path in parent.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def _set_aside(folder: Path) -> Path:
    aside = folder.with_name(f"{folder.name}.damaged")
    number = 1
    while aside.exists():
        number += 1
        aside = folder.with_name(f"{folder.name}.damaged-{number}")
    return folder.rename(aside)


def _find_latest(parent: Path) -> dict[str, Any]:
    """Return the folder of the newest intact checkpoint, or None, and what was set aside."""
    warnings: list[str] = []
    if not parent.is_dir():
        return {"folder": None, "warnings": warnings}
    remove_leftovers(parent)
    for folder in reversed(_checkpoints(parent)):
        if (fault := find_fault(folder)) is None:
            return {"folder": str(folder), "warnings": warnings}
        aside = _set_aside(folder)
        warnings.append(f"{folder.name} is damaged ({fault}); it is set aside as {aside.name}")
    if damaged := sorted(path.name for path in parent.glob("*.damaged*")):
        raise CheckpointError(
            f"{parent}: no usable checkpoint, only {', '.join(damaged)}; "
            "remove them to start the run from its beginning"
        )
    return {"folder": None, "warnings": warnings}


@torch.no_grad()
def _load(
    folder: Path,
    module: nn.Module,
    optimizer: Optimizer,
    identity: Mapping[str, Any],
    group: Group,
) -> dict[str, Any]:
    """Load a verified checkpoint in all processes; return its progress."""
    weights: dict[str, Tensor] = {}
    states: dict[str, Tensor] = {}

    def read() -> dict[str, Any]:
        _check_manifest(folder, identity)
        weights.update(_read_module(folder, module))
        states.update(_read_optimizer(folder, module))
        return {
            "progress": read_object(folder / _FILES[2], CheckpointError),
            "states": {key: [list(each.shape), str(each.dtype)] for key, each in states.items()},
        }

    answer = group.first(read)
    for name, tensor in module_tensors(module).items():
        fill(tensor, weights.get(name), group)
    parameters = dict(module.named_parameters())
    optimizer.state.clear()
    for key, (shape, dtype) in answer["states"].items():
        name, _, state_name = key.rpartition(".")
        state = _empty_state(parameters[name], torch.Size(shape), getattr(torch, dtype[6:]))
        fill(state, states.get(key), group)
        optimizer.state[parameters[name]][state_name] = state
    progress: dict[str, Any] = answer["progress"]
    return progress


def _check_manifest(folder: Path, identity: Mapping[str, Any]) -> None:
    manifest = read_object(folder / MANIFEST, CheckpointError)
    if (found := manifest.get("format")) != FORMAT:
        raise CheckpointError(
            f"{folder}: got checkpoint format {found}, this version reads {FORMAT}"
        )
    if difference := first_difference(manifest.get("identity"), identity):
        raise CheckpointError(f"{folder}: belongs to another run: {difference}")


def _read_module(folder: Path, module: nn.Module) -> dict[str, Tensor]:
    """Read the weights of a checkpoint, which must be those of the module."""
    stored: dict[str, Tensor] = safetensors.torch.load_file(folder / _FILES[0])
    tensors = module_tensors(module)
    if unmatched := sorted(stored.keys() ^ tensors.keys()):
        raise CheckpointError(
            f"{folder}: does not fit the module: {unmatched[0]!r} is only in one of them"
        )
    for name, tensor in tensors.items():
        if stored[name].shape != tensor.shape or stored[name].dtype != tensor.dtype:
            raise CheckpointError(
                f"{folder}: {name} is {tuple(stored[name].shape)} {stored[name].dtype}, "
                f"the module's {tuple(tensor.shape)} {tensor.dtype}"
            )
    return stored


def _read_optimizer(folder: Path, module: nn.Module) -> dict[str, Tensor]:
    """Read the optimizer's state, which must be that of the module's parameters."""
    stored: dict[str, Tensor] = safetensors.torch.load_file(folder / _FILES[1])
    parameters = dict(module.named_parameters())
    for key in stored:
        if (name := key.rpartition(".")[0]) not in parameters:
            raise CheckpointError(f"{folder}: holds optimizer state of an unknown {name!r}")
    return stored


def _empty_state(parameter: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Make a tensor for a state of the optimizer, like its parameter if the shapes agree."""
    if shape != parameter.shape:
        return torch.empty(shape, dtype=dtype)
    # The parameter's own memory layout: sums over it must go in the same order as before.
    return torch.empty_like(parameter, dtype=dtype)
