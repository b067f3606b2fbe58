"""The sections for a GPU, each tried in small on a CPU, so that a GPU need not debug them."""

import re
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from tests.tasks.pretraining.small import World

from benchmarks import gpu, results
from benchmarks.cuda import anchors
from benchmarks.cuda import bench as benches
from benchmarks.cuda import mini as minis
from benchmarks.cuda.bench import MIXES, Bench, Mix
from benchmarks.cuda.parts import part_of
from modernbert.settings import to_toml

CPU = Bench(device=torch.device("cpu"), tiny=True)
PEERS = {"transformers", "inference", "queries", "documents", "indexing", "contrastive"}


def run(section: str, out: Path, *more: str) -> int:
    return gpu.main(["--device", "cpu", "--tiny", "--section", section, "--out", str(out), *more])


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler takes most of the time; `tests/model/test_compiled.py` is about it."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch, "compile", lambda function, **_: function)


@pytest.mark.parametrize("section", [name for name in gpu.SECTIONS if name != "mini"])
def test_a_section_in_small(
    section: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if section in PEERS:
        pytest.importorskip("transformers")
    out = tmp_path / "gpu.json"
    results.write(out, {"benchmark": "gpu", "sections": {"other": {"rows": {}}}})
    assert run(section, out) == 0
    found = results.read(out)["sections"]
    assert found.keys() == {"other", section}
    assert found[section]["rows"] and found[section]["tiny"] and found[section]["commit"]
    shown = capsys.readouterr().out
    assert all(row in shown for row in found[section]["rows"])


def test_sections_run_in_order_while_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that the file has are left out; each is a process, and one that fails ends no other."""
    out, ran = tmp_path / "gpu.json", []

    def process(command: list[str], *, timeout: float) -> subprocess.CompletedProcess[str]:
        ran.append(command[command.index("--section") + 1 :][:1] + command[-3:])
        assert 0 < timeout <= 180
        if len(ran) == 2:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", process)
    monkeypatch.setattr(
        gpu, "IN_ORDER", (("flex", "base"), ("memory", "large"), ("training",), ("answers",))
    )
    results.write(out, {"benchmark": "gpu", "sections": {"flex base": {}}})
    common = ["--device", "cpu", "--tiny", "--out", str(out)]
    assert gpu.main([*common, "--minutes", "14"]) == 1
    assert [each[0] for each in ran] == ["memory", "training", "answers"]
    assert "training: stopped" in capsys.readouterr().out
    assert gpu.main([*common, "--minutes", "0"]) == 0
    assert "no time for answers" in capsys.readouterr().out and len(ran) == 3


def test_a_section_that_is_stopped_leaves_what_it_has_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, ran = tmp_path / "gpu.json", []

    def stopped(bench: Bench) -> dict[str, dict[str, int]]:
        rows = bench.rows()
        rows["first"] = {"ms": 1}
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu, "SECTIONS", {"flex": stopped, "training": stopped})
    monkeypatch.setattr(gpu, "IN_ORDER", (("flex",), ("training",)))
    with pytest.raises(KeyboardInterrupt):
        run("flex", out)
    section = results.read(out)["sections"]["flex"]
    assert section["unfinished"] and section["rows"] == {"first": {"ms": 1}}
    monkeypatch.setattr(gpu, "_run", lambda *given: ran.append(given[2]) or True)
    assert gpu.main(["--device", "cpu", "--tiny", "--out", str(out), "--minutes", "1"]) == 0
    assert ran == ["training", "flex"]  # again, after those that were not tried


def test_every_section_in_order_exists() -> None:
    """What the documents call unmeasured is in the order, so that one command measures it."""
    named = {name for name, *_ in gpu.IN_ORDER}
    assert named <= gpu.SECTIONS.keys()
    page = (Path(gpu.__file__).parents[1] / "docs" / "gpu.md").read_text(encoding="utf-8")
    unmeasured = page[page.index("## What has not been measured") : page.index("## How it works")]
    assert set(re.findall(r"--section ([a-z]+)", unmeasured)) <= named
    assert {size for _, *sizes in gpu.IN_ORDER for size in sizes} <= set(benches.SIZES)


@pytest.mark.parametrize(
    ("anchor", "scaled"),
    [(anchors.ANSWERS, 3_815 * 989.4 / 209.5), (anchors.PAIRS["17m"], 7_517.0)],
)
def test_speeds_of_other_chips_are_scaled(anchor: anchors.Anchor, scaled: float) -> None:
    row = anchor.beside(scaled + 1)
    assert row["scaled by products"] == pytest.approx(scaled) and row["beaten"] == "yes"
    assert anchor.beside(scaled - 1)["beaten"] == "no"
    assert anchors.EAGER_QUERIES.beside(2.7)["beaten"] == "yes"


def test_mini_goes_on_in_parts(tmp_path: Path) -> None:
    """Stopped after the first step of each part, and finished in the end."""
    world = World.write(tmp_path / "world")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(to_toml(world.recipe(tmp_path / "run")), encoding="utf-8")
    before = signal.getsignal(signal.SIGTERM)
    first = minis.mini(CPU, recipe, minutes=0.0)
    assert first["run"]["status"] == "interrupted" and first["run"]["step"] == 1
    assert signal.getsignal(signal.SIGTERM) is before
    assert run("mini", tmp_path / "gpu.json", "--recipe", str(recipe)) == 0
    rows = results.read(tmp_path / "gpu.json")["sections"]["mini"]["rows"]
    assert rows["run"]["status"] == "finished" and rows["run"]["step"] > 1
    assert any("held-out loss" in figures for figures in rows.values())


def test_without_data_mini_says_so_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("mini", tmp_path / "gpu.json", "--recipe", str(tmp_path / "none.toml")) == 2
    assert "no such file" in capsys.readouterr().err
    assert not (tmp_path / "gpu.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_names_the_other_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--section", "ceilings"]) == 2
    assert "--device cpu --tiny" in capsys.readouterr().err


def test_an_unequal_output_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "benchmarks.cuda.equality.attend",
        lambda query, key, value, *_, **__: query + key + value,
    )
    assert run("correctness", tmp_path / "gpu.json") == 1


@pytest.mark.parametrize("name", MIXES)
def test_mixes_fill_a_batch_nearly(name: str) -> None:
    lengths = MIXES[name].lengths(65_536)
    assert 65_536 - MIXES[name].longest <= sum(lengths) <= 65_536
    assert min(lengths) >= 16 and max(lengths) <= MIXES[name].longest
    assert (len(set(lengths)) == 1) == name.endswith("fixed")


def test_a_batch_tells_its_filling_apart() -> None:
    batch = CPU.batch("tiny", Mix(100, 60, 20))
    real = benches.real_tokens(batch)
    assert batch.batch.total_tokens == 1_024 > real > 900
    assert int(batch.masked_indices.max()) < real


@pytest.mark.parametrize(
    ("kernel", "part"),
    [
        ("void pytorch_flash::flash_fwd_kernel<...>", "attention"),
        ("nvjet_tst_192x192_64x4", "products"),
        ("sm90_xmma_gemm_bf16bf16", "products"),
        ("void at::native::multi_tensor_apply_kernel<...>", "optimizer"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("triton_per_fused_native_layer_norm_0", "norms, rotation, GeGLU, loss"),
    ],
)
def test_kernels_are_told_apart_by_name(kernel: str, part: str) -> None:
    assert part_of(kernel) == part


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_correctness_on_cuda(tmp_path: Path) -> None:
    arguments = ["--section", "correctness", "--tiny", "--out", str(tmp_path / "gpu.json")]
    assert gpu.main(arguments) == 0
    assert (tmp_path / "gpu.json").exists()
