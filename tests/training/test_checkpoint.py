"""Checkpoints: exact, verified, and never in the way of an earlier one."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.full_disk import largest_file
from tests.training.toy import ToyModule, weights

from modernbert.errors import CheckpointError
from modernbert.files import TEMPORARY_PREFIX
from modernbert.training import checkpoint
from modernbert.training.optimizer import StableAdamW, parameter_groups

IDENTITY = {"seed": 1, "model": {"layers": 6}}


def make(seed: int = 0, steps: int = 2) -> tuple[ToyModule, StableAdamW]:
    module = ToyModule(seed)
    optimizer = StableAdamW(parameter_groups(module, 0.01), peak_learning_rate=0.01)
    for step in range(steps):
        torch.manual_seed(step)
        module(torch.arange(8)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return module, optimizer


def save(run_folder: Path, step: int, seed: int = 0) -> ToyModule:
    module, optimizer = make(seed)
    module.scale.fill_(step)
    place = {"step": step, "tokens": step * 10, "position": step}
    checkpoint.save(checkpoint.folder_of(run_folder, step), module, optimizer, place, IDENTITY)
    return module


def test_a_round_trip_is_exact(tmp_path: Path) -> None:
    module, optimizer = make(seed=1, steps=5)
    checkpoint.save(checkpoint.folder_of(tmp_path, 5), module, optimizer, {"step": 5}, IDENTITY)
    other, other_optimizer = make(seed=2, steps=1)
    loaded = checkpoint.load_latest(tmp_path, other, other_optimizer, IDENTITY)
    assert loaded is not None and loaded.progress == {"step": 5} and loaded.warnings == ()
    assert weights(other) == weights(module)
    assert other.decoder.weight is other.embedding.weight
    for mine, theirs in zip(module.parameters(), other.parameters(), strict=True):
        state, other_state = optimizer.state[mine], other_optimizer.state[theirs]
        assert state.keys() == other_state.keys() == {"step", "exp_avg", "exp_avg_sq"}
        for key in state:
            assert torch.equal(state[key], other_state[key]), key
            assert state[key].stride() == other_state[key].stride(), key


def test_the_files_hold_names_and_no_pickle(tmp_path: Path) -> None:
    save(tmp_path, 12)
    folder = tmp_path / "checkpoints" / "step-00000012"
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json", "model.safetensors", "optimizer.safetensors", "progress.json",
    ]  # fmt: skip
    stored = checkpoint.safetensors.torch.load_file(folder / "model.safetensors")
    assert "embedding.weight" in stored and "decoder.weight" not in stored
    assert {"dense.weight", "scale"} < stored.keys()
    stored = checkpoint.safetensors.torch.load_file(folder / "optimizer.safetensors")
    assert {"dense.weight.step", "dense.weight.exp_avg", "norm.bias.exp_avg_sq"} < stored.keys()
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.iterdir())


def test_nothing_to_load(tmp_path: Path) -> None:
    assert checkpoint.load_latest(tmp_path, *make(), IDENTITY) is None
    (tmp_path / "checkpoints").mkdir()
    assert checkpoint.load_latest(tmp_path, *make(), IDENTITY) is None


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


FILES = ("model.safetensors", "optimizer.safetensors", "progress.json", "manifest.json")


@pytest.mark.parametrize("damage", [_flip, _truncate, _empty, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_taken(
    tmp_path: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    save(tmp_path, 4)
    save(tmp_path, 8)
    damage(checkpoint.folder_of(tmp_path, 8) / name)
    module, optimizer = make(seed=3)
    loaded = checkpoint.load_latest(tmp_path, module, optimizer, IDENTITY)
    assert loaded is not None and loaded.folder.name == "step-00000004"
    assert loaded.progress["step"] == 4 and float(module.scale) == 4
    (warning,) = loaded.warnings
    assert "step-00000008" in warning and name in warning and "step-00000008.damaged" in warning
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000004", "step-00000008.damaged"]
    save(tmp_path, 8)
    damage(checkpoint.folder_of(tmp_path, 8) / name)
    loaded = checkpoint.load_latest(tmp_path, module, optimizer, IDENTITY)
    assert loaded is not None and "step-00000008.damaged-2" in loaded.warnings[0]


def test_a_file_that_cannot_be_read_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    save(tmp_path, 4)
    monkeypatch.setattr(checkpoint.hashlib, "file_digest", fail)
    fault = checkpoint.find_fault(checkpoint.folder_of(tmp_path, 4))
    assert fault == "model.safetensors cannot be read: Input/output error"


@pytest.mark.parametrize("content", ["[]", "7", "{}", '{"seal": 1}', "\xff"])
def test_a_manifest_of_anything_is_a_fault(tmp_path: Path, content: str) -> None:
    save(tmp_path, 4)
    folder = checkpoint.folder_of(tmp_path, 4)
    (folder / "manifest.json").write_bytes(content.encode("latin-1"))
    assert "manifest.json" in (checkpoint.find_fault(folder) or "")


def test_only_damaged_ones_are_an_error_each_time(tmp_path: Path) -> None:
    save(tmp_path, 4)
    _flip(checkpoint.folder_of(tmp_path, 4) / "model.safetensors")
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"only step-00000004\.damaged; remove"):
            checkpoint.load_latest(tmp_path, *make(), IDENTITY)


def test_leftovers_of_killed_saves_are_removed(tmp_path: Path) -> None:
    save(tmp_path, 4)
    leftover = tmp_path / "checkpoints" / f"{TEMPORARY_PREFIX}step-00000008"
    leftover.mkdir()
    (leftover / "model.safetensors").touch()
    checkpoint.load_latest(tmp_path, *make(), IDENTITY)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]


def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 4)
    with pytest.raises(CheckpointError, match="another run: seed is 1 there and 2 here"):
        checkpoint.load_latest(tmp_path, *make(), {**IDENTITY, "seed": 2})


def test_another_module_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 4)
    module, optimizer = make()
    module.extra = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"'extra.bias' is only in one of them"):
        checkpoint.load_latest(tmp_path, module, optimizer, IDENTITY)
    module, optimizer = make()
    module.norm = torch.nn.LayerNorm(9)
    with pytest.raises(CheckpointError, match=r"norm.weight is \(8,\) .* the module's \(9,\)"):
        checkpoint.load_latest(tmp_path, module, optimizer, IDENTITY)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 99)
        save(tmp_path, 4)
    with pytest.raises(CheckpointError, match="format 99, this version reads 2"):
        checkpoint.load_latest(tmp_path, *make(), IDENTITY)


def test_the_newest_are_kept_by_number(tmp_path: Path) -> None:
    for step in (999_999_99, 5, 123_456_789):  # more digits sort after fewer
        save(tmp_path, step)
    checkpoint.keep_newest(tmp_path, 2)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-123456789", "step-99999999"]


def test_a_checkpoint_is_never_overwritten(tmp_path: Path) -> None:
    save(tmp_path, 4)
    with pytest.raises(CheckpointError, match="never overwritten"):
        save(tmp_path, 4)


@pytest.mark.parametrize("num_bytes", [100, 2000])  # the model's file fails; the optimizer's
def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, num_bytes: int) -> None:
    save(tmp_path, 4)
    message = (
        "step-00000008: could not be saved: .*File too large.*; earlier checkpoints are untouched"
    )
    with pytest.raises(CheckpointError, match=message), largest_file(num_bytes):
        save(tmp_path, 8)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]
    loaded = checkpoint.load_latest(tmp_path, *make(), IDENTITY)
    assert loaded is not None and loaded.progress["step"] == 4


def test_the_manifest_names_sizes_hashes_and_identity(tmp_path: Path) -> None:
    save(tmp_path, 4)
    folder = checkpoint.folder_of(tmp_path, 4)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["identity"] == IDENTITY
    assert manifest["files"].keys() == set(FILES) - {"manifest.json"}
    for name, fingerprint in manifest["files"].items():
        assert fingerprint["bytes"] == (folder / name).stat().st_size
