"""What a run's log says of the machine: its name, its versions, its memory and its speed."""

import platform
import resource
import sys
import time
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("modernbert", "torch", "numpy", "tokenizers")
_SECONDS = 0.5
_SIZES = {"cuda": 8192}  # rows and columns of the matrices; where they are smaller, it is waiting
_CPU_SIZE = 1536


@lru_cache
def matmul_flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second that matrix products reach by themselves, here and now.

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
    """The most memory that this process has had so far: of the device, or resident on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe_machine(device: torch.device) -> dict[str, Any]:
    """The device, its threads on a CPU, and the versions, as JSON values."""
    is_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else _cpu_name(),
        **({} if is_gpu else {"threads": torch.get_num_threads()}),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **versions(_PACKAGES)},
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or "CPU"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those that are installed; code that is run from its folder is not."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
