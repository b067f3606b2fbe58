"""What stands beside every figure: the machine, the versions, the commit; and writing it."""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modernbert.files import write_whole

FOLDER = Path("benchmarks/results/cpu")
_PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "onnxruntime",
    "onnx",
    "openvino",
    "nncf",
    "fastembed",
    "numpy",
)
_FLAGS = ("avx2", "fma", "avx_vnni", "amx_bf16", "amx_int8", "amx_tile")


def surroundings(*, num_threads: int) -> dict[str, Any]:
    """Taken before anything is measured, so that the load is the others'.

    In a copy without its history, the variable BENCHMARK_COMMIT says which commit it is.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": os.environ.get("BENCHMARK_COMMIT") or _git("rev-parse", "HEAD"),
        "uncommitted": bool(_git("status", "--porcelain", "--", "src", "benchmarks/cpu")),
        "machine": _machine(),
        "num_threads": num_threads,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "packages": _versions(),
    }


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(result, indent=1) + "\n").encode())


def read(path: Path) -> dict[str, Any]:
    """A result that `write` has written."""
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    fields = {
        name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name", platform.processor()),
        "family": fields.get("cpu family"),
        "model": fields.get("model"),
        "num_cpus": os.cpu_count(),
        "flags": sorted(flag for flag in flags if flag in _FLAGS or flag.startswith("avx512")),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _git(*arguments: str) -> str:
    try:
        answer = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )
    except FileNotFoundError:  # no git
        return ""
    return answer.stdout.strip()
