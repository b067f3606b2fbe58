"""Compiling the C kernels for this machine, once, and loading them."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

from modernbert.errors import NativeKernelsWarning

SWITCH = "MODERNBERT_NATIVE"
"""Environment variable: `0` keeps the kernels off; otherwise CPU flags to do without, by commas."""

_SOURCES = Path(__file__).parent
_NEEDED = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_OPTIONAL = {"avx512_bf16": "-mavx512bf16", "avx512_vnni": "-mavx512vnni"}
_FLAGS = ("-O3", "-march=x86-64-v4", "-mtune=native", "-fopenmp", "-shared", "-fPIC")


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The CPU's flags that matter here, less those that `MODERNBERT_NATIVE` takes away.

    A limit that the user has set for torch's own kernels (ATEN_CPU_CAPABILITY) holds here too.
    """
    switch = os.environ.get(SWITCH, "")
    if switch == "0" or os.environ.get("ATEN_CPU_CAPABILITY", "avx512").lower() != "avx512":
        return frozenset()
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return frozenset()
    found = _read_flags() & (_NEEDED | _OPTIONAL.keys())
    return found - {flag.strip() for flag in switch.split(",")}


def _read_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


def has_bfloat16() -> bool:
    """Whether the kernels exist here and can compute in bfloat16."""
    return "avx512_bf16" in cpu_flags() and library() is not None


def has_int8() -> bool:
    """Whether the kernels exist here and can compute in int8."""
    return "avx512_vnni" in cpu_flags() and library() is not None


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None on a CPU without AVX-512 or without a C compiler.

    A missing or failing compiler is told once, as a `NativeKernelsWarning`.
    """
    if not cpu_flags() >= _NEEDED:
        return None
    try:
        return ctypes.CDLL(str(_compiled()))
    except (OSError, subprocess.SubprocessError, UserWarning) as error:
        output = getattr(error, "stderr", None) or str(error)
        lines = output.strip().splitlines()
        reason = next((line for line in lines if "error" in line), lines[-1] if lines else "")
        warnings.warn(
            f"the C kernels could not be compiled ({reason}); the slower torch kernels are used. "
            f"Install a C compiler, or set {SWITCH}=0 to be spared this message",
            NativeKernelsWarning,
            stacklevel=3,
        )
        return None


def _compiled() -> Path:
    """The library's file, compiled if it is not there."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    compiler = compiler or shutil.which("clang")
    if compiler is None:
        raise OSError("no C compiler found")
    flags = [*_FLAGS, *(_OPTIONAL[flag] for flag in sorted(cpu_flags() & _OPTIONAL.keys()))]
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    sources = sorted(_SOURCES.glob("*.[ch]"))
    content = b"\0".join(source.read_bytes() for source in sources)
    cpu = "".join(sorted(_read_flags()))  # `-mtune=native` and a home shared by several machines
    key = "\0".join([version, cpu, *flags]).encode() + content
    path = _cache_folder() / f"kernels-{hashlib.sha256(key).hexdigest()[:24]}.so"
    if not path.exists():
        _compile(compiler, flags, path)
    return path


def _compile(compiler: str, flags: list[str], path: Path) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".so")
    os.close(descriptor)
    try:
        command = [compiler, *flags, str(_SOURCES / "modernbert.c"), "-o", name, "-lm"]
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _cache_folder() -> Path:
    """A folder of this user's own, as what lies there is loaded as code."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "modernbert"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="modernbert-"))
