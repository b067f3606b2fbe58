"""What the processes of a group do in the tests of pretraining; see `tests.processes`."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from tests.full_disk import largest_file
from tests.tasks.pretraining.small import World

from modernbert.data.collate import MaskedBatch
from modernbert.files import TEMPORARY_PREFIX
from modernbert.tasks.pretraining import pretrain as pretraining
from modernbert.tasks.pretraining.pretrain import Pretraining, pretrain
from modernbert.training import checkpoint
from modernbert.training.distributed import joined
from modernbert.training.task import Progress


def train(world: str, output: str, changes: dict[str, Any], fault: str = "") -> list[Any]:
    """Pretrain the small recipe; status, step and exit code.

    fault: what becomes of process RANK, as `RANK:KIND:NUMBER`:

        `killed:N`    by SIGKILL after it has computed its part of step N
        `save:N`      by SIGKILL in the middle of the save of step N
        `told:N`      to stop, by SIGTERM, while it computes step N
        `nan:N`       the loss of step N is no number there
        `hangs:N`     it sleeps where it should compute step N
        `full:N`      no file can grow beyond 1,000 bytes from step N on
        `torn:N`      once the shards are open, and not yet read, N of their bytes change
        `lost:N`      once the shards are open, the tokens of all but N are deleted
        `other:N`     its recipe has the seed N
    """
    rank, kind, number = [*fault.split(":"), "", "", ""][:3]
    if os.environ.get("RANK", "0") == rank:
        if kind == "other":
            changes = {**changes, "seed": int(number)}
        _prepare(kind, int(number), Path(output), World(Path(world)))
    recipe = World(Path(world)).recipe(Path(output), **changes)
    result = pretrain(recipe)
    return [result.status, result.progress.step, result.exit_code]


def _prepare(kind: str, number: int, output: Path, world: World) -> None:
    if kind == "save":
        folder = checkpoint.folder_of(output, number)
        partial = folder.with_name(TEMPORARY_PREFIX + folder.name)
        write = checkpoint._write_manifest

        def die_or_write(*arguments: Any) -> None:
            if partial.exists():
                os.kill(os.getpid(), signal.SIGKILL)
            write(*arguments)

        checkpoint._write_manifest = die_or_write
        return
    if kind in ("torn", "lost"):
        begin = Pretraining.steps

        def after_fault(task: Pretraining, progress: Progress) -> Any:
            (_tear if kind == "torn" else _lose)(world, number)
            return begin(task, progress)

        Pretraining.steps = after_fault  # type: ignore[method-assign]
    loss = Pretraining.loss
    happened = []

    def with_fault(task: Pretraining, *arguments: Any, step: int) -> torch.Tensor:
        value = loss(task, *arguments, step=step)
        if step != number or happened:
            return value
        happened.append(step)
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "told":
            os.kill(os.getpid(), signal.SIGTERM)
        elif kind == "hangs":
            time.sleep(12)
            os._exit(9)
        elif kind == "full":
            _fill_the_disk()
        return value * float("nan") if kind == "nan" else value

    Pretraining.loss = with_fault  # type: ignore[method-assign]


def _fill_the_disk() -> None:
    """Only for the files of checkpoints: metrics are small, and stay writable."""
    write = checkpoint.write_tensors

    def write_little(*arguments: Any) -> Any:
        with largest_file(1000):
            return write(*arguments)

    checkpoint.write_tensors = write_little  # type: ignore[assignment]


def _tear(world: World, num_bytes: int) -> None:
    for path in world.path.glob("*/*.tokens"):
        content = bytearray(path.read_bytes())
        content[:num_bytes] = bytes(byte ^ 1 for byte in content[:num_bytes])
        path.write_bytes(content)


def _lose(world: World, num_left: int) -> None:
    for path in sorted(world.path.glob("*/*.tokens"))[num_left:]:
        path.unlink()


def batches(world: str, output: str, changes: dict[str, Any], num_steps: int) -> list[Any]:
    """The bins, their masked tokens and what a step knows of itself, as this process sees them."""
    recipe = World(Path(world)).recipe(Path(output), **changes)
    with joined(20) as group:
        data = pretraining.PretrainingData.open(recipe)
        steps = Pretraining(data, group=group).steps(Progress())
        seen = []
        for _ in range(num_steps):
            step = next(steps)
            seen.append(
                {
                    "bins": _bins(step.micro_batches),
                    "num_micro_batches": len(step.micro_batches),
                    "whole": [step.progress.tokens, step.progress.position, step.fill],
                    "num_targets": step.num_targets,
                }
            )
        steps.close()
        return seen


def _bins(micro_batches: Any) -> dict[str, Any]:
    """What each bin hides, by its number; nothing of a micro-batch without targets."""
    found: dict[str, Any] = {}
    for batch in micro_batches:
        if batch.num_masked:
            found.update(_each_bin(batch))
    return found


def _each_bin(batch: MaskedBatch) -> dict[str, Any]:
    found, first = {}, 0
    for bin_id, num_tokens in zip(batch.bin_ids, batch.bin_tokens_each, strict=True):
        rows = batch.masked_indices
        inside = (rows >= first) & (rows < first + num_tokens)
        ids = batch.batch.token_ids[first : first + num_tokens]
        found[str(bin_id)] = [
            (rows[inside] - first).tolist(),
            batch.labels[inside].tolist(),
            ids.tolist(),
        ]
        first += num_tokens
    return found


def rows(output: Path, kind: str) -> list[dict[str, Any]]:
    """The records of a kind in a run's metrics."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]
