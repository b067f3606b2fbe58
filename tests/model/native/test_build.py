"""Compiling the kernels: what is built anew, what is left out, and what a wheel carries."""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from modernbert.model.native import build
from modernbert.model.native.build import VARIANTS, BuildReport, Variant

ROOT = Path(__file__).resolve().parents[3]
HERE = [variant for variant in VARIANTS if variant.architecture == platform.machine()]

needs_compiler = pytest.mark.skipif(
    platform.system() != "Linux" or not HERE or shutil.which("gcc") is None,
    reason="needs Linux and gcc",
)


@pytest.fixture
def one_variant(monkeypatch: pytest.MonkeyPatch) -> Variant:
    """The table cut to its plainest variant of this architecture, which compiles in a second."""
    monkeypatch.setattr(build, "VARIANTS", HERE[:1])
    return HERE[0]


def compiler_that(folder: Path, script: str) -> str:
    """A compiler written in shell."""
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sources differ from those that were compiled."""
    for source in build.SOURCES.glob("*.[ch]"):
        shutil.copy(source, folder)
    with (folder / "modernbert.c").open("a") as source:
        source.write("/* changed */")
    monkeypatch.setattr(build, "SOURCES", folder)
    build._sources.cache_clear()


@pytest.fixture(autouse=True)
def sources_read_again() -> object:
    yield
    build._sources.cache_clear()


def test_names_and_files_are_unique() -> None:
    assert len({variant.file_name for variant in VARIANTS}) == len(VARIANTS)


@needs_compiler
def test_a_fresh_object_is_kept_and_a_stale_one_built_anew(
    one_variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build.build(tmp_path).built[one_variant.name]
    first = path.stat()
    assert build.is_fresh(one_variant, path)
    assert build.build(tmp_path).built == {one_variant.name: path}
    assert path.stat().st_mtime_ns == first.st_mtime_ns
    changed(tmp_path, monkeypatch)
    assert not build.is_fresh(one_variant, path)
    build.build(tmp_path)
    assert build.is_fresh(one_variant, path)
    assert path.stat().st_mtime_ns != first.st_mtime_ns


@needs_compiler
def test_an_object_needs_an_old_library_and_no_openmp_of_the_system(
    one_variant: Variant, tmp_path: Path
) -> None:
    path = build.build(tmp_path).built[one_variant.name]
    assert (2, 2) <= build.needed_glibc(path) <= build.NEWEST_GLIBC
    assert b"GOMP_parallel" in path.read_bytes()
    assert b"libgomp" not in path.read_bytes()


@needs_compiler
def test_without_a_compiler_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    report = build.build(tmp_path)
    assert not report.built
    assert str(report) == (
        "C kernels: not built, as no C compiler was found; the torch kernels will be used"
    )


@needs_compiler
def test_what_a_compiler_cannot_build_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an old one that lacks a flag."""
    refused = f"-m{max(HERE[-1].features - HERE[0].features).replace('_', '')}"
    script = f'case "$*" in *{refused}*) echo "cc: error: no {refused}" >&2; exit 1;; esac\n'
    monkeypatch.setenv("CC", compiler_that(tmp_path, f'{script}exec gcc "$@"'))
    monkeypatch.setattr(build, "VARIANTS", [HERE[0], HERE[-1]])
    report = build.build(tmp_path)
    assert list(report.built) == [HERE[0].name]
    assert str(report) == (
        f"C kernels: built {HERE[0].name}; no {HERE[-1].name} (cc: error: no {refused})"
    )
    assert [path.name for path in tmp_path.glob("*.so")] == [HERE[0].file_name]


@needs_compiler
@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
def test_objects_with_another_openmp_are_refused(
    one_variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runtimes in one process would be two pools of threads."""
    (tmp_path / "modernbert.c").write_text(
        "void __kmpc_fork_call(void); void f(void){__kmpc_fork_call();}"
    )
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    build._sources.cache_clear()
    assert "set CC to a GCC" in build.build(tmp_path).failures[one_variant.name]


def test_another_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert "there are none for Darwin on" in str(build.build(tmp_path))


def test_a_report_is_one_line() -> None:
    report = BuildReport(built={"plain": Path("a")}, failures={"best": "gcc: error"})
    assert str(report) == "C kernels: built plain; no best (gcc: error)"


class TestWheels:
    """What `python -m build` makes, without its environment."""

    def build(self, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        pytest.importorskip("hatchling", reason="hatchling is not installed")
        return subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
            cwd=ROOT,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def contents(self, folder: Path, tag: str) -> set[str]:
        (wheel,) = folder.glob("*.whl")
        assert wheel.name.endswith(f"-py3-none-{tag}.whl")
        names = zipfile.ZipFile(wheel).namelist()
        return {Path(name).name for name in names if "/native/" in name}

    @needs_compiler
    def test_all_variants_of_this_architecture(self, tmp_path: Path) -> None:
        answer = self.build(tmp_path)
        assert answer.returncode == 0, answer.stderr
        found = self.contents(tmp_path, f"manylinux_2_28_{platform.machine()}")
        assert {name for name in found if name.endswith(".so")} == {v.file_name for v in HERE}
        assert not any(name.endswith((".c", ".h")) for name in found)

    def test_all_variants_of_another_architecture(self, tmp_path: Path) -> None:
        other = {"x86_64": "aarch64", "aarch64": "x86_64"}[platform.machine()]
        if shutil.which(f"{other}-linux-gnu-gcc") is None:
            pytest.skip(f"{other}-linux-gnu-gcc not installed")
        answer = self.build(tmp_path, MODERNBERT_TARGET=other)
        assert answer.returncode == 0, answer.stderr
        found = self.contents(tmp_path, f"manylinux_2_28_{other}")
        expected = {v.file_name for v in VARIANTS if v.architecture == other}
        assert {name for name in found if name.endswith(".so")} == expected

    def test_without_a_compiler_it_is_pure_python(self, tmp_path: Path) -> None:
        answer = self.build(tmp_path, PATH=str(tmp_path), CC="")
        assert answer.returncode == 0, answer.stderr
        assert "no C compiler was found" in answer.stdout + answer.stderr
        assert not any(name.endswith(".so") for name in self.contents(tmp_path, "any"))

    def test_an_architecture_that_is_asked_for_must_be_built(self, tmp_path: Path) -> None:
        answer = self.build(tmp_path, MODERNBERT_TARGET="pdp11")
        assert answer.returncode != 0
        assert "there are none for" in answer.stderr
        assert not list(tmp_path.glob("*.whl"))
