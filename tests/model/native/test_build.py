"""Compiling the kernels: what is chosen, and what happens when it cannot be done."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from modernbert.errors import NativeKernelsWarning
from modernbert.model.native import build


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing cached, neither in the process nor on the disk."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_read_flags", lambda: frozenset(build._NEEDED | {"avx512_bf16"}))
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.delenv(build.SWITCH, raising=False)
    build.cpu_flags.cache_clear()
    build.library.cache_clear()
    yield tmp_path
    build.cpu_flags.cache_clear()
    build.library.cache_clear()


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        (build.SWITCH, "0", set()),
        (build.SWITCH, "avx512_bf16", build._NEEDED),
        (build.SWITCH, "avx512_bf16, avx512f", build._NEEDED - {"avx512f"}),
        ("ATEN_CPU_CAPABILITY", "avx2", set()),
        ("ATEN_CPU_CAPABILITY", "default", set()),
        ("ATEN_CPU_CAPABILITY", "avx512", build._NEEDED | {"avx512_bf16"}),
    ],
)
@pytest.mark.usefixtures("fresh")
def test_flags_can_be_taken_away(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: set[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert build.cpu_flags() == expected


@pytest.mark.usefixtures("fresh")
def test_a_cpu_without_avx512_is_no_reason_to_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_read_flags", lambda: frozenset({"avx2"}))
    assert build.library() is None
    assert not build.has_bfloat16() and not build.has_int8()


@pytest.mark.usefixtures("fresh")
def test_no_compiler_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(build.shutil, "which", lambda _: None)
    with pytest.warns(NativeKernelsWarning, match="no C compiler found.*MODERNBERT_NATIVE=0"):
        assert build.library() is None
    assert build.library() is None  # a second warning would be an error here


def test_a_compiler_that_fails_is_told(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = fresh / "cc"
    compiler.write_text(
        '#!/bin/sh\ncase $1 in --version) echo 1;; *) echo "error: x" >&2; exit 1;; esac\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.warns(NativeKernelsWarning, match="error: x"):
        assert build.library() is None
    assert list((fresh / "cache" / "modernbert").iterdir()) == []


@pytest.mark.skipif(build.library() is None, reason="needs AVX-512 and a C compiler")
def test_compiled_once_and_kept(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build._compiled()
    assert first.parent == fresh / "cache" / "modernbert"
    assert first.parent.stat().st_mode & 0o77 == 0
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    assert build._compiled() == first


@pytest.mark.skipif(build.library() is None, reason="needs AVX-512 and a C compiler")
@pytest.mark.parametrize("taken", ["", "avx512_bf16", "avx512_vnni", "avx512_bf16,avx512_vnni"])
def test_every_set_of_flags_compiles_and_computes(taken: str, tmp_path: Path) -> None:
    """In a process of its own, as a library stays loaded."""
    program = """
        import torch
        from modernbert.batch import PackedBatch
        from modernbert.model import EncoderConfig, Encoder, initialize
        from modernbert.model.native.build import has_bfloat16, has_int8, library
        assert library() is not None
        encoder = initialize(Encoder(EncoderConfig.preset("tiny", vocab_size=320)), seed=0)
        batch = PackedBatch.from_sequences([range(200), range(3)])
        with torch.no_grad():
            before = encoder(batch)
        after = encoder.for_inference("auto")(batch)
        print(has_bfloat16(), has_int8(), float((after - before).abs().max()) < 0.05)
    """
    environment = {**os.environ, build.SWITCH: taken, "XDG_CACHE_HOME": str(tmp_path)}
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    has_bfloat16, has_int8, is_close = answer.stdout.split()
    assert is_close == "True"
    assert not ("avx512_bf16" in taken and has_bfloat16 == "True")
    assert not ("avx512_vnni" in taken and has_int8 == "True")
