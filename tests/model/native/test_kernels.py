"""The kernels' own test, in C, of each variant that this CPU has."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from modernbert.model.native.build import SOURCES, VARIANTS, Variant
from modernbert.model.native.loading import this_machine

PROGRAM = Path(__file__).with_name("kernels_test.c")
HERE = [variant for variant in VARIANTS if variant.architecture == platform.machine()]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize("variant", HERE, ids=lambda variant: variant.name)
def test_against_plain_loops(variant: Variant, tmp_path: Path) -> None:
    if not variant.features <= this_machine().features:
        pytest.skip(f"this CPU lacks what {variant.name} needs")
    program = str(tmp_path / "kernels_test")
    command = ["gcc", "-O2", *variant.flags, f"-I{SOURCES}", str(PROGRAM), "-o", program, "-lm"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    answer = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stdout
