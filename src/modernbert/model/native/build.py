"""The variants of the C kernels, and compiling them: `make kernels`, or this file as a script.

Each variant is one shared object beside this file, compiled from `modernbert.c` for CPUs that have
certain units. This module imports nothing but the standard library, as hatch runs it
(`hatch_build.py`) where neither torch nor the package is installed.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
TARGET = "MODERNBERT_TARGET"
"""Environment variable: the architecture to compile for, `x86_64` or `aarch64`; else this one's."""

NEWEST_GLIBC = (2, 28)
"""What the objects may need at most, so that a wheel is `manylinux_2_28`."""

_COMPILE = ("-O3", "-fopenmp", "-fPIC")
# Without -fopenmp: torch brings the OpenMP runtime, see loading.py, and the objects name none.
_LINK = ("-shared", "-lm")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The kernels for CPUs with certain units.

    Attributes:
        name: As in `MODERNBERT_NATIVE` and in the object's file name.
        architecture: As `platform.machine` has it.
        features: What the CPU must have, in the words of /proc/cpuinfo.
        flags: For GCC and clang. Each unit is named by itself, as old compilers lack names of
            whole generations; one that lacks a unit leaves the variant out.
        precisions: What the kernels compute in.
    """

    name: str
    architecture: str
    features: frozenset[str]
    flags: tuple[str, ...]
    precisions: tuple[str, ...]

    @property
    def file_name(self) -> str:
        """Of the shared object."""
        return f"_kernels-{self.name}.so"


_AVX512 = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_ALL = ("float32", "int8", "bfloat16")


def _x86(name: str, *units: str, precisions: tuple[str, ...] = ("float32", "int8")) -> Variant:
    units = ("avx2", "fma", "bmi2", *units)
    flags = tuple(f"-m{unit.replace('_', '')}" for unit in units)
    return Variant(
        name=name,
        architecture="x86_64",
        features=frozenset(units),
        flags=flags,
        precisions=precisions,
    )


def _arm(name: str, *features: str, march: str, precisions: tuple[str, ...]) -> Variant:
    return Variant(
        name=name,
        architecture="aarch64",
        features=frozenset(("asimd", *features)),
        flags=(f"-march={march}",),
        precisions=precisions,
    )


# Of each architecture from the plainest to the best.
VARIANTS = (
    _x86("avx2"),
    _x86("avx2-vnni", "avx_vnni"),
    _x86("avx512", *_AVX512),
    _x86("avx512-vnni", *_AVX512, "avx512_vnni"),
    _x86("avx512-bf16", *_AVX512, "avx512_vnni", "avx512_bf16", precisions=_ALL),
    _arm("neon", march="armv8-a", precisions=("float32", "int8")),
    _arm("neon-dotprod", "asimddp", march="armv8.2-a+dotprod", precisions=("float32", "int8")),
    _arm(
        "neon-bf16",
        *("asimddp", "i8mm", "bf16"),
        march="armv8.2-a+dotprod+i8mm+bf16",
        precisions=_ALL,
    ),
)


@dataclass
class BuildReport:
    """What came of a build.

    Attributes:
        built: Objects that are there now, by variant.
        failures: The compiler's line for each variant that it could not build.
        error: Why nothing could be tried at all, or empty.
    """

    built: dict[str, Path] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return f"C kernels: not built, as {self.error}; the torch kernels will be used"
        parts = [f"built {', '.join(self.built)}"] if self.built else []
        parts += [f"no {name} ({reason})" for name, reason in self.failures.items()]
        return f"C kernels: {'; '.join(parts)}"


def build(folder: Path = SOURCES) -> BuildReport:
    """Compile every variant of the target's architecture whose object is not fresh.

    Args:
        folder: Where the objects go.
    """
    architecture = os.environ.get(TARGET) or platform.machine()
    wanted = [variant for variant in VARIANTS if variant.architecture == architecture]
    if platform.system() != "Linux" or not wanted:
        return BuildReport(error=f"there are none for {platform.system()} on {architecture}")
    report = BuildReport()
    report.built = {variant.name: folder / variant.file_name for variant in wanted}
    stale = [variant for variant in wanted if not is_fresh(variant, folder / variant.file_name)]
    compiler = _compiler(architecture)
    if stale and compiler is None:
        return BuildReport(error="no C compiler was found")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = pool.map(lambda variant: _build(str(compiler), variant, folder), stale)
    for variant, reason in zip(stale, reasons, strict=True):
        if reason:
            report.failures[variant.name] = reason
            del report.built[variant.name]
    return report


def has_sources() -> bool:
    """Return whether the sources lie here; a wheel carries objects alone."""
    return bool(_sources())


def is_fresh(variant: Variant, path: Path) -> bool:
    """Return whether an object is there and of the sources, if these lie here."""
    if not path.exists():
        return False
    return not has_sources() or bytes.fromhex(_build_id(variant)) in path.read_bytes()


def needed_glibc(path: Path) -> tuple[int, int]:
    """Return the newest version of the C library whose symbols an object takes."""
    versions = re.findall(rb"GLIBC_(\d+)\.(\d+)", path.read_bytes())
    return max(((int(major), int(minor)) for major, minor in versions), default=(0, 0))


@cache
def _sources() -> bytes:
    """All sources in one piece; empty where there are none."""
    files = sorted(SOURCES.glob("*.[ch]"))
    return b"\0".join(path.read_bytes() for path in files)


def _build_id(variant: Variant) -> str:
    """What an object has as its build ID: a hash of the sources and the flags."""
    flags = "\0".join((*_COMPILE, *variant.flags, *_LINK))
    return hashlib.sha1(flags.encode() + _sources()).hexdigest()


def _compiler(architecture: str) -> str | None:
    names: Sequence[str] = ("gcc", "cc")
    if architecture != platform.machine():
        names = (f"{architecture}-linux-gnu-gcc",)
    return os.environ.get("CC") or next(filter(None, map(shutil.which, names)), None)


def _build(compiler: str, variant: Variant, folder: Path) -> str:
    """Compile one variant; returns why it failed, or nothing."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as place:
        compiled, made = f"{place}/kernels.o", Path(place, variant.file_name)
        source, build_id = str(SOURCES / "modernbert.c"), f"-Wl,--build-id=0x{_build_id(variant)}"
        try:
            _run(compiler, *_COMPILE, *variant.flags, "-c", source, "-o", compiled)
            _run(compiler, compiled, *_LINK, build_id, "-o", str(made))
        except (OSError, subprocess.SubprocessError) as error:
            return _reason(error)
        if b"__kmpc_" in made.read_bytes():
            return "clang's OpenMP is not the one that torch brings; set CC to a GCC"
        made.replace(folder / variant.file_name)
    return ""


def _run(compiler: str, *arguments: str) -> None:
    command = [*compiler.split(), *arguments]
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)


def _reason(error: Exception) -> str:
    """The first line of a compiler's output that speaks of an error."""
    lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
    return next((line for line in lines if "error" in line), lines[-1] if lines else "")


if __name__ == "__main__":
    done = build()
    sys.stdout.write(f"{done}\n")
    sys.exit(bool(done.failures) and not done.built)
