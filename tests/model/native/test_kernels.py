"""The kernels' own test, in C: every variant, by two compilers, under sanitizers, and on ARM."""

import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from modernbert.model.native.build import SOURCES, VARIANTS, Variant
from modernbert.model.native.loading import this_machine

PROGRAM = Path(__file__).with_name("kernels_test.c")
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ARM_GCC, ARM_EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"

each_variant_here = pytest.mark.parametrize(
    "variant",
    [variant for variant in VARIANTS if variant.architecture == platform.machine()],
    ids=lambda variant: variant.name,
)


def needs(*programs: str) -> None:
    """Skip where a program is not installed."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"{' and '.join(missing)} not installed")


def flags_here(variant: Variant) -> Sequence[str]:
    """A variant's flags; skips where the CPU cannot run it.

    A CPU with AVX-512 VNNI runs the source of `avx2-vnni` in the other encoding of its instruction.
    """
    features = this_machine().features
    if variant.features <= features:
        return variant.flags
    lacking = variant.features - features
    if lacking == {"avx_vnni"} and {"avx512vl", "avx512_vnni"} <= features:
        other = [flag for flag in variant.flags if flag != "-mavxvnni"]
        return [*other, "-mavx512vl", "-mavx512vnni"]
    pytest.skip(f"this CPU lacks {', '.join(sorted(lacking))}")


def check(folder: Path, compiler: str, flags: Sequence[str], *emulator: str) -> None:
    """Compile the test and run it."""
    program = str(folder / "kernels_test")
    command = [compiler, *flags, f"-I{SOURCES}", str(PROGRAM), "-o", program, "-lm"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    answer = subprocess.run([*emulator, program], capture_output=True, text=True, timeout=600)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@each_variant_here
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_against_plain_loops(compiler: str, variant: Variant, tmp_path: Path) -> None:
    needs(compiler)
    check(tmp_path, compiler, ["-O2", *flags_here(variant)])


@each_variant_here
def test_no_address_and_no_number_is_out_of_bounds(variant: Variant, tmp_path: Path) -> None:
    """AddressSanitizer and UndefinedBehaviorSanitizer end the program at the first fault."""
    needs("gcc")
    check(tmp_path, "gcc", ["-O1", *SANITIZERS, *flags_here(variant)])


@pytest.mark.parametrize(
    ("name", "cpu"),
    [
        ("neon", "cortex-a72"),
        ("neon-dotprod", "max"),
        pytest.param("neon-bf16", "max", marks=pytest.mark.slow),
    ],
)
def test_on_arm(name: str, cpu: str, tmp_path: Path) -> None:
    """Under qemu: a CPU without dot products, and one with all that the variants use."""
    needs(ARM_GCC, ARM_EMULATOR)
    (variant,) = (variant for variant in VARIANTS if variant.name == name)
    emulator = (ARM_EMULATOR, "-L", "/usr/aarch64-linux-gnu", "-cpu", cpu)
    check(tmp_path, ARM_GCC, ["-O2", *variant.flags], *emulator)
