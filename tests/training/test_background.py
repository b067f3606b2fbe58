"""Saves beside the training: exact, one at a time, and never a silent failure."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.full_disk import largest_file
from tests.training.test_checkpoint import make
from tests.training.toy import weights

from modernbert.errors import CheckpointError
from modernbert.training import checkpoint
from modernbert.training.background import BackgroundSaver

IDENTITY = {"seed": 1}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_what_is_saved_is_the_state_at_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the weights change while the thread is at work."""
    module, optimizer = make(steps=2)
    before, changed = weights(module), threading.Event()
    write = checkpoint.write

    def write_late(*arguments: Any) -> None:
        assert changed.wait(20)
        write(*arguments)

    monkeypatch.setattr(checkpoint, "write", write_late)
    saver = BackgroundSaver(tmp_path, IDENTITY)
    saver.save(checkpoint.folder_of(tmp_path, 2), module, optimizer, {"step": 2}, keep=2)
    assert saver.finished() == []
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(3)
        for state in optimizer.state.values():
            state["exp_avg"].fill_(7)
    changed.set()
    saver.wait()
    (saved,) = saver.finished()
    assert saved.folder == checkpoint.folder_of(tmp_path, 2) and saved.progress == {"step": 2}
    assert saved.seconds >= saved.paused_seconds > 0 and saver.finished() == []
    other, other_optimizer = make(seed=3, steps=1)
    checkpoint.load_latest(tmp_path, other, other_optimizer, IDENTITY)
    assert weights(other) == before
    same, same_optimizer = make(steps=2)
    for mine, theirs in zip(same.parameters(), other.parameters(), strict=True):
        states = same_optimizer.state[mine], other_optimizer.state[theirs]
        assert torch.equal(states[0]["exp_avg"], states[1]["exp_avg"])


def test_the_same_memory_serves_every_save(tmp_path: Path) -> None:
    module, optimizer = make()
    saver = BackgroundSaver(tmp_path, IDENTITY)
    places = []
    for step in (1, 2, 3):
        saver.save(checkpoint.folder_of(tmp_path, step), module, optimizer, {}, keep=2)
        saver.wait()
        buffers = saver._buffers["model.safetensors"]
        places.append({name: tensor.data_ptr() for name, tensor in buffers.items()})
    assert places[0] == places[1] == places[2]
    assert names(tmp_path) == ["step-00000002", "step-00000003"]
    assert len(saver.finished()) == 3


def test_a_save_waits_for_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once: list[int] = []
    write = checkpoint.write

    def counted(*arguments: Any) -> None:
        at_once.append(sum(thread.name == "save" for thread in threading.enumerate()))
        write(*arguments)

    monkeypatch.setattr(checkpoint, "write", counted)
    module, optimizer = make()
    saver = BackgroundSaver(tmp_path, IDENTITY)
    for step in range(5):
        saver.save(checkpoint.folder_of(tmp_path, step), module, optimizer, {}, keep=9)
    saver.wait()
    assert at_once == [1] * 5 and len(names(tmp_path)) == 5


def test_the_old_one_goes_only_once_the_new_one_was_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, optimizer = make()
    saver = BackgroundSaver(tmp_path, IDENTITY)
    saver.save(checkpoint.folder_of(tmp_path, 1), module, optimizer, {}, keep=1)
    saver.wait()
    with monkeypatch.context() as patch:
        write_tensors = checkpoint.write_tensors

        def flip(path: Path, tensors: Any) -> Any:
            fingerprint = write_tensors(path, tensors)
            content = bytearray(path.read_bytes())
            content[-1] ^= 1  # as a disk may
            path.write_bytes(content)
            return fingerprint

        patch.setattr(checkpoint, "write_tensors", flip)
        saver.save(checkpoint.folder_of(tmp_path, 2), module, optimizer, {}, keep=1)
        with pytest.raises(CheckpointError, match="differs from its hash after it was written"):
            saver.wait()
    assert names(tmp_path) == ["step-00000001"]
    saver.save(checkpoint.folder_of(tmp_path, 3), module, optimizer, {}, keep=1)
    saver.wait()
    assert names(tmp_path) == ["step-00000003"]


def test_a_full_disk_is_told_at_the_next_question_and_only_once(tmp_path: Path) -> None:
    module, optimizer = make()
    saver = BackgroundSaver(tmp_path, IDENTITY)
    with largest_file(100):
        saver.save(checkpoint.folder_of(tmp_path, 1), module, optimizer, {}, keep=1)
        saver.close()
    with pytest.raises(CheckpointError, match=r"could not be saved: .*File too large"):
        saver.finished()
    assert saver.finished() == [] and names(tmp_path) == []
    saver.save(checkpoint.folder_of(tmp_path, 2), module, optimizer, {}, keep=1)
    saver.wait()
    assert names(tmp_path) == ["step-00000002"]
