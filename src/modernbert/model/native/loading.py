"""Which variant of the C kernels is used here, and loading it."""

import ctypes
import dataclasses
import functools
import os
import platform
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from modernbert.errors import ConfigError, NativeKernelsWarning
from modernbert.model.native.build import SOURCES, VARIANTS, Variant, has_sources, is_fresh

SWITCH = "MODERNBERT_NATIVE"
"""Environment variable: `0` keeps the kernels off, the name of a variant takes that one."""

AMX = "amx"
"""A name for `MODERNBERT_NATIVE` too: oneDNN's products, also on a CPU without AMX."""

_AMX_FEATURES = frozenset({"amx_tile", "amx_bf16", "amx_int8"})
_AMX_VARIANT = "avx512-bf16"  # whose kernels stand between the products; CPUs with AMX have it

CAPABILITY = "ATEN_CPU_CAPABILITY"
"""torch's own variable for what its kernels may use; ours keep to it too."""

_INSTEAD = "torch's kernels give the same results, more slowly"


@dataclass(frozen=True, kw_only=True)
class HostCpu:
    """What there is to choose from.

    Attributes:
        architecture: `x86_64` or `aarch64`; on other systems than Linux their name besides.
        features: The CPU's, in the words of /proc/cpuinfo.
        objects: The variants that this installation has, and whether each is of its sources.
        remedy: What gives an installation those that it lacks.
    """

    architecture: str
    features: frozenset[str]
    objects: Mapping[str, bool]
    remedy: str = "run `make kernels`"

    def variants(self) -> list[Variant]:
        """Return those that exist for the architecture, from the plainest to the best."""
        return [variant for variant in VARIANTS if variant.architecture == self.architecture]

    def objection(self, variant: Variant) -> str:
        """Why a variant cannot be used; empty when it can."""
        if lacking := variant.features - self.features:
            return f"this CPU lacks {', '.join(sorted(lacking))}"
        if variant.name not in self.objects:
            absent = variant.name if self.objects else "them"
            return f"this installation lacks {absent}; {self.remedy}"
        is_fresh = self.objects[variant.name]
        return "" if is_fresh else f"the sources of {variant.name} have changed; {self.remedy}"

    def usable(self) -> list[Variant]:
        """Return those that can be used, from the plainest to the best."""
        return [variant for variant in self.variants() if not self.objection(variant)]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The variant to use.

    Attributes:
        variant: None where the torch kernels do all the work.
        note: Why it is none, or not the best; empty when nothing is amiss.
        is_wanted: Whether the user asked for it, so that there is nothing to say.
        takes_onednn: Whether oneDNN does the products of inference, for the sake of AMX.
    """

    variant: Variant | None
    note: str = ""
    is_wanted: bool = False
    takes_onednn: bool = False

    @property
    def name(self) -> str:
        """Of the variant, or `amx`, or `torch`."""
        if self.variant is None:
            return "torch"
        return AMX if self.takes_onednn else self.variant.name


def choose(machine: HostCpu, environment: Mapping[str, str]) -> Choice:
    """Return the best variant that a machine has, within the limits that the user has set.

    Raises:
        ConfigError: `MODERNBERT_NATIVE` asks for what is not there.
    """
    wanted = environment.get(SWITCH, "").strip()
    if wanted == "0":
        return Choice(variant=None, note=f"{SWITCH} is 0", is_wanted=True)
    if wanted:
        variant = _named(wanted, machine)
        return Choice(variant=variant, is_wanted=True, takes_onednn=wanted == AMX)
    limit = environment.get(CAPABILITY, "").lower()
    if limit == "default":
        return Choice(variant=None, note=f"{CAPABILITY} is {limit}", is_wanted=True)
    if limit == "avx2":
        features = frozenset(name for name in machine.features if not name.startswith("avx512"))
        machine = dataclasses.replace(machine, features=features)
    return _best(machine)


def _named(name: str, machine: HostCpu) -> Variant:
    object_name = _AMX_VARIANT if name == AMX else name
    found = next((each for each in machine.variants() if each.name == object_name), None)
    objection = machine.objection(found) if found else "no such kernels for this machine"
    if found and not objection:
        return found
    names = ["0", *(variant.name for variant in machine.usable())]
    names += [AMX] if _AMX_VARIANT in names else []
    raise ConfigError(f"{SWITCH}: got {name!r} ({objection}), expected one of {', '.join(names)}")


def _best(machine: HostCpu) -> Choice:
    variants, usable = machine.variants(), machine.usable()
    if not variants:
        return Choice(variant=None, note=f"there are none for {machine.architecture}")
    if not usable:
        return Choice(variant=None, note=machine.objection(variants[0]))
    stale = [name for name, is_fresh in machine.objects.items() if not is_fresh]
    note = f"the sources of {', '.join(stale)} have changed; {machine.remedy}" if stale else ""
    has_amx = usable[-1].name == _AMX_VARIANT and machine.features >= _AMX_FEATURES
    return Choice(variant=usable[-1], note=note, takes_onednn=has_amx)


def this_machine() -> HostCpu:
    """Return the CPU of this process and the compiled kernels beside this file."""
    architecture, system = platform.machine(), platform.system()
    return HostCpu(
        architecture=architecture if system == "Linux" else f"{system} on {architecture}",
        features=_cpu_features(),
        objects={
            variant.name: is_fresh(variant, SOURCES / variant.file_name)
            for variant in VARIANTS
            if (SOURCES / variant.file_name).exists()
        },
        remedy="run `make kernels`, which needs GCC"
        if has_sources()
        else "install a wheel for this platform",
    )


def _cpu_features() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    words = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(words.partition(":")[2].split())


@functools.cache
def choice() -> Choice:
    """Return what is used in this process.

    Raises:
        ConfigError: `MODERNBERT_NATIVE` asks for what is not there.
    """
    return choose(this_machine(), os.environ)


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the kernels that are used in this process; None where torch's do all the work.

    What is amiss is told once, as a `NativeKernelsWarning`.
    """
    chosen = choice()
    if chosen.note and not chosen.is_wanted:
        warnings.warn(describe(chosen), NativeKernelsWarning, stacklevel=2)
    if chosen.variant is None:
        return None
    try:
        _share_openmp()
        return ctypes.CDLL(str(SOURCES / chosen.variant.file_name))
    except OSError as error:
        text = f"the C kernels cannot be loaded ({error}); {_INSTEAD}"
        warnings.warn(text, NativeKernelsWarning, stacklevel=2)
        return None


def describe(chosen: Choice) -> str:
    """One line that says what is used, and what is amiss."""
    if chosen.variant is None:
        return f"C kernels: none, as {chosen.note}; {_INSTEAD}"
    return "; ".join(filter(None, [f"C kernels: {chosen.name}", chosen.note]))


def variant_name() -> str:
    """Return the name of the variant in use, such as `amx`; `torch` for torch's own kernels."""
    return "torch" if library() is None else choice().name


def takes_onednn() -> bool:
    """Return whether oneDNN does the products of inference."""
    return library() is not None and choice().takes_onednn and torch.backends.mkldnn.is_available()


def has_bfloat16() -> bool:
    """Return whether the kernels exist here and can compute in bfloat16."""
    return _computes("bfloat16")


def has_int8() -> bool:
    """Return whether the kernels exist here and can compute in int8."""
    return _computes("int8")


def _computes(precision: str) -> bool:
    variant = choice().variant
    return library() is not None and variant is not None and precision in variant.precisions


class _SymbolInfo(ctypes.Structure):
    """What `dladdr` fills in."""

    _fields_ = (
        ("file_name", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol_name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _share_openmp() -> None:
    """Let the kernels find the OpenMP runtime that torch runs on.

    It is a file of torch's own, whose name differs between its builds. The kernels name no runtime,
    so that there is one pool of threads, and none of the system's is needed.

    Raises:
        OSError: Torch has no OpenMP.
    """
    info = _SymbolInfo()
    try:
        entry = ctypes.CDLL(
            torch._C.__file__
        ).GOMP_parallel  # also looks where torch's libraries do
    except AttributeError:
        raise OSError("this build of torch has no OpenMP") from None
    ctypes.CDLL(None).dladdr(ctypes.cast(entry, ctypes.c_void_p), ctypes.byref(info))
    ctypes.CDLL(os.fsdecode(info.file_name), mode=ctypes.RTLD_GLOBAL)
