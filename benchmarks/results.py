"""What stands beside every figure: the machine, the versions, the commit; and writing it."""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from modernbert.files import write_whole
from modernbert.model.native.loading import variant_name
from modernbert.training.computation import compute_dtype

FOLDER = Path("benchmarks/results")
_PACKAGES = (
    *("torch", "triton", "flash-attn-3", "numpy", "transformers", "sentence-transformers"),
    *("fastembed", "onnx", "onnxruntime", "openvino", "nncf"),
)
_FLAGS = ("avx2", "fma", "avx_vnni", "amx_bf16", "amx_int8", "amx_tile")
# Cores by vendor, family and the first and last model, all as /proc/cpuinfo counts them.
_CORES = (
    ("AuthenticAMD", 23, 0x00, 0x2F, "zen1"),
    ("AuthenticAMD", 23, 0x30, 0xFF, "zen2"),
    ("AuthenticAMD", 25, 0x10, 0x1F, "zen4"),
    ("AuthenticAMD", 25, 0x60, 0x7F, "zen4"),
    ("AuthenticAMD", 25, 0xA0, 0xAF, "zen4"),
    ("AuthenticAMD", 25, 0x00, 0xFF, "zen3"),
    ("AuthenticAMD", 26, 0x00, 0xFF, "zen5"),
    ("GenuineIntel", 6, 0x55, 0x55, "skylake-server"),
    ("GenuineIntel", 6, 0x6A, 0x6C, "ice-lake-server"),
    ("GenuineIntel", 6, 0x8F, 0x8F, "sapphire-rapids"),
    ("GenuineIntel", 6, 0xCF, 0xCF, "emerald-rapids"),
    ("GenuineIntel", 6, 0xAD, 0xAE, "granite-rapids"),
    ("GenuineIntel", 6, 0x97, 0x9A, "alder-lake"),
    ("GenuineIntel", 6, 0xB7, 0xBF, "raptor-lake"),
)

RESTRICTIONS: Mapping[str, Mapping[str, str]] = {
    "avx2": {
        "MODERNBERT_NATIVE": "avx2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
}
"""Variables that keep ours, torch, oneDNN and MKL to a part of the CPU's instructions."""


def surroundings(*, num_threads: int) -> dict[str, Any]:
    """Taken before anything is measured, so that the load is the others'.

    In a copy without its history, the variable BENCHMARK_COMMIT says which commit it is.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": os.environ.get("BENCHMARK_COMMIT") or _git("rev-parse", "HEAD"),
        "uncommitted": bool(_git("status", "--porcelain", "--", "src", "benchmarks/cpu")),
        "machine": _machine(),
        "kernels": variant_name(),
        "restricted_to": restriction(),
        "num_threads": num_threads,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "packages": versions(),
    }


def machine_name() -> str:
    """The name of this machine's folder: its cores, and the kernels where they are no AVX-512 ones.

    `zen5`, `zen3-avx2`, or `zen4-avx2` where the run is kept to AVX2.
    """
    fields = _cpu_fields()
    vendor = fields.get("vendor_id", "")
    family, model = (int(fields.get(name, -1)) for name in ("cpu family", "model"))
    cores = core_name(vendor, family, model) or _plain(fields.get("model name", platform.machine()))
    variant = variant_name()
    return cores if variant.startswith("avx512") else f"{cores}-{variant}"


def core_name(vendor: str, family: int, model: int) -> str:
    """The name of a core; empty for one that is not known.

    >>> core_name("AuthenticAMD", 25, 17), core_name("AuthenticAMD", 25, 1)
    ('zen4', 'zen3')
    """
    for known, its_family, first, last, name in _CORES:
        if (known, its_family) == (vendor, family) and first <= model <= last:
            return name
    return ""


def restriction() -> str | None:
    """The name of the restriction that this process runs under; None for none."""
    for name, variables in RESTRICTIONS.items():
        if all(os.environ.get(each) == value for each, value in variables.items()):
            return name
    return None


def has_bfloat16_units() -> bool:
    """Whether this CPU has units for bfloat16, and they may be used."""
    return restriction() is None and compute_dtype("cpu", "auto") is torch.bfloat16


def on_this_cpu(name: str) -> Path:
    """The file of a result of this CPU, by the name of its row."""
    return FOLDER / "cpu" / machine_name() / f"{name}.json"


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(result, indent=1) + "\n").encode())


def read(path: Path) -> dict[str, Any]:
    """A result that `write` has written."""
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def _cpu_fields() -> dict[str, str]:
    """The last processor of /proc/cpuinfo; nothing where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _plain(name: str) -> str:
    """Make a name that is fit for a folder.

    >>> _plain("Some CPU @ 2.00GHz")
    'some-cpu-2-00ghz'
    """
    return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


def _machine() -> dict[str, Any]:
    fields = _cpu_fields()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {
        "cpu": fields.get("model name", platform.processor()),
        "family": fields.get("cpu family"),
        "model": fields.get("model"),
        "num_cpus": os.cpu_count(),
        "flags": sorted(flag for flag in flags if flag in _FLAGS or flag.startswith("avx512")),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(),
    }


def versions() -> dict[str, str]:
    """Of the packages that are compared, and of torch."""
    found = {}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _git(*arguments: str) -> str:
    try:
        answer = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parents[1]
        )
    except FileNotFoundError:  # no git
        return ""
    return answer.stdout.strip()
