"""Where a run's records go, and what they say of the machine.

A record is a dictionary with `kind` and `step`. The first of a run is `start` or `resume`; a
resumed run's logs forget what came after its checkpoint, so that each step is there once.
"""

import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from modernbert.errors import RunError
from modernbert.files import new_file
from modernbert.json_files import log_row

Record = dict[str, Any]
Observer = Callable[[Record], None]


class MetricsLog:
    """Appends each record as a line to a JSON Lines file that every reader can follow.

    A `start` empties the file. A `resume` drops the rows of steps after its own, the evaluations
    after its `evaluated_step`, the rows of phases that are not among its `phases`, and a last line
    that a killed process left unfinished.

    Raises:
        RunError: When called, if the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, record: Record) -> None:
        try:
            if record["kind"] == "start":
                self.path.unlink(missing_ok=True)
            elif record["kind"] == "resume":
                self._rewind(record)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise RunError(f"{self.path}: could not be written: {error}") from None

    def _rewind(self, resume: Record) -> None:
        rows = read_metrics(self.path)
        with new_file(self.path) as file:
            for row in rows:
                last = resume["evaluated_step" if row["kind"] == "evaluation" else "step"]
                if row["step"] <= last and _has_begun(row.get("phase"), resume):
                    file.write(json.dumps(row).encode() + b"\n")


class TensorBoardLog:
    """Writes the numbers of step and evaluation records as TensorBoard scalars.

    Args:
        folder: Of the event files; made at the first record.

    Raises:
        RunError: When called, if the files cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    def __call__(self, record: Record) -> None:
        try:
            self._write(record)
        except OSError as error:
            raise RunError(f"{self.folder}: could not be written: {error}") from None

    def _write(self, record: Record) -> None:
        if record["kind"] in ("start", "resume"):
            self._open(record["step"])
        elif record["kind"] in ("step", "evaluation") and self._writer is not None:
            for name, value in numbers_of(record):
                self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])
        elif record["kind"] == "end" and self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and optional

        self._writer = SummaryWriter(str(self.folder), purge_step=step + 1 if step else 0)


def tensorboard_log(folder: Path) -> list[Observer]:
    """Return a `TensorBoardLog` in a list, or an empty one where tensorboard is not installed."""
    return [TensorBoardLog(folder)] if find_spec("tensorboard") is not None else []


def read_metrics(path: Path) -> Iterator[Record]:
    """Yield the rows of a metrics file, one by one; an unfinished line is passed over."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if (row := log_row(line)) is not None and "step" in row:
                yield row


def read_evaluations(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Return the step and the figures of each evaluation in a run's log."""
    besides = ("kind", "step", "phase", "tokens", "seconds")
    return [
        (row["step"], {name: value for name, value in row.items() if name not in besides})
        for row in read_metrics(path)
        if row["kind"] == "evaluation"
    ]


def _has_begun(phase: str | None, resume: Record) -> bool:
    """Whether a row's phase is the one that is resumed, or an earlier one."""
    return phase is None or "phases" not in resume or phase in resume["phases"]


def numbers_of(record: Record) -> Iterator[tuple[str, float]]:
    """Yield the names and values of a record's numbers, without its step."""
    for name, value in record.items():
        if name not in ("step", "kind") and isinstance(value, int | float):
            yield name, value


_PACKAGES = ("modernbert", "torch", "numpy", "tokenizers")
_SECONDS = 0.5
_SIZES = {"cuda": 8192}  # rows and columns of the matrices; where they are smaller, it is waiting
_CPU_SIZE = 1536


@lru_cache
def matmul_flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the operations a second that matrix products reach by themselves, here and now.

    The best of all that fit into half a second, once in a process: what a step is compared to.
    """
    size = _SIZES.get(device.type, _CPU_SIZE)
    generator = torch.Generator(device).manual_seed(0)  # the run's own numbers stay as they are
    left, right = (
        torch.randn(size, size, generator=generator, device=device).to(dtype) for _ in range(2)
    )
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < _SECONDS:
        _wait(device)
        started = time.perf_counter()
        left @ right
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: of the device, or resident on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    import resource  # Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return the device, its threads on a CPU, and the versions, as JSON values."""
    is_gpu = device.type != "cpu"
    return {
        "device": _device_name(device),
        **({} if is_gpu else {"threads": torch.get_num_threads()}),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **versions(_PACKAGES)},
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"the GPU of {_cpu_name()}" if device.type == "mps" else _cpu_name()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or "CPU"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of installed packages; code that is run from its folder is not one."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
