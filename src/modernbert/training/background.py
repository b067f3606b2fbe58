"""Writing checkpoints while training continues.

At a save, all processes together copy the run's tensors into memory of process 0, which is reused
from save to save. A thread of process 0 writes them, hashes them, reads them back, and then deletes
the oldest checkpoint. At most one save is in progress.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from modernbert.training import checkpoint
from modernbert.training.distributed import ALONE, Group
from modernbert.training.tensors import whole


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint that is whole, verified and on the disk.

    Attributes:
        progress: The run's place in it.
        seconds: The time from the copy to the end.
        paused_seconds: The part of it during which training waited.
    """

    folder: Path
    progress: Mapping[str, Any]
    seconds: float
    paused_seconds: float


class BackgroundSaver:
    """Saves the states of a run, each in a thread of process 0.

    All processes of the group call `save` and `wait`.
    """

    def __init__(
        self, run_folder: Path, identity: Mapping[str, Any], *, group: Group = ALONE
    ) -> None:
        self.run_folder, self.identity, self.group = run_folder, identity, group
        self._buffers: dict[str, dict[str, Tensor]] = {}
        self._thread: threading.Thread | None = None
        self._saved: list[Saved] = []
        self._error: Exception | None = None

    def save(
        self,
        folder: Path,
        module: nn.Module,
        optimizer: Optimizer,
        progress: Mapping[str, Any],
        *,
        keep: int,
    ) -> None:
        """Start saving the current state, after waiting for an earlier save to end.

        Args:
            folder: The folder of the new checkpoint.
            module: The module to save.
            optimizer: The optimizer to save.
            progress: The run's place, as JSON values.
            keep: How many of the newest checkpoints to keep.

        Raises:
            CheckpointError: The earlier save failed.
        """
        self.wait()
        started = time.perf_counter()
        self._copy(checkpoint.tensors_of(module, optimizer))
        if not self.group.is_first:
            return
        paused = time.perf_counter() - started
        # Not a daemon: a process that ends for another reason still finishes its checkpoint.
        self._thread = threading.Thread(
            target=self._write, args=(folder, dict(progress), keep, started, paused), name="save"
        )
        self._thread.start()

    def finished(self) -> Sequence[Saved]:
        """Return the saves that ended since the last call, without waiting.

        Raises:
            CheckpointError: A save failed.
        """
        self._raise_error()
        saved, self._saved = self._saved, []
        return saved

    def wait(self) -> None:
        """Wait for the save in progress; all processes continue together.

        Raises:
            CheckpointError: The save failed.
        """
        self.group.first(self._join)

    def close(self) -> None:
        """Wait for this process's own thread, whether or not its save succeeds."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _join(self) -> None:
        self.close()
        self._raise_error()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    @torch.no_grad()
    def _copy(self, files: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Copy tensors into the buffers, gathering sharded ones one by one."""
        for file, tensors in files.items():
            buffers = self._buffers.setdefault(file, {})
            for name in buffers.keys() - tensors.keys():
                del buffers[name]  # state that was given up
            for name, tensor in tensors.items():
                values = whole(tensor.detach())
                if not self.group.is_first:
                    continue
                on_gpu = values.device.type == "cuda"
                if name not in buffers:
                    buffers[name] = torch.empty(values.shape, dtype=values.dtype, pin_memory=on_gpu)
                buffers[name].copy_(values, non_blocking=on_gpu)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def _write(
        self, folder: Path, progress: dict[str, Any], keep: int, started: float, paused: float
    ) -> None:
        """Do the thread's work."""
        try:
            checkpoint.write(folder, self._buffers, progress, self.identity)
            checkpoint.keep_newest(self.run_folder, keep)
        except Exception as error:  # raised again where the training asks
            self._error = error
            return
        seconds = time.perf_counter() - started
        self._saved.append(
            Saved(folder=folder, progress=progress, seconds=seconds, paused_seconds=paused)
        )
