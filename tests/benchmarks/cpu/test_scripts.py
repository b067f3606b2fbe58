"""Every script answers `--help`, and what is written can be read, drawn and set beside targets."""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.cpu import __main__ as driver
from benchmarks.cpu import targets
from benchmarks.cpu.training_step import BATCHES, check, example
from benchmarks.peers import BUILDERS, engines_for, left_out
from benchmarks.workloads import WORKLOADS

SCRIPTS = ("encoding", "training_step", "memory", "__main__")


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = importlib.import_module(f"benchmarks.cpu.{name}")
    with pytest.raises(SystemExit) as ended:
        script.main(["--help"])
    assert ended.value.code == 0
    assert "--" in capsys.readouterr().out


def test_rows_are_commands_of_these_scripts() -> None:
    """Each row's options are known to its script, and no two write to one file."""
    for row in driver.ROWS:
        script = importlib.import_module(f"benchmarks.cpu.{row.script.split()[0]}")
        for given in ({}, {"threads": "1", "cpu_time": True}):
            command = row.command(**given)
            options = script.parser().parse_args(command[command.index("-m") + 2 :])
            assert options.out == row.out
    assert len({row.out for row in driver.ROWS}) == len(driver.ROWS)


def test_targets_read_rows_that_are_run() -> None:
    rows = {row.name for row in driver.ROWS}
    assert {target.row for target in (*targets.AVX512, *targets.AVX2)} <= rows


def test_every_engine_that_is_asked_for_can_be_built() -> None:
    for workload in WORKLOADS.values():
        assert set(engines_for(workload)) <= BUILDERS.keys()


def test_whoever_is_left_out_of_long_input_is_named_with_the_reason() -> None:
    workload = WORKLOADS["8192-padded"]
    absent = {name.split()[0] for name in BUILDERS} - {
        name.split()[0] for name in engines_for(workload)
    }
    assert absent == left_out(workload).keys() and all(left_out(workload).values())
    assert left_out(WORKLOADS["512-fixed"]) == {}


def run_driver(*arguments: str) -> list[str]:
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.cpu", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return answer.stdout.splitlines()


def test_the_driver_begins_nothing_that_would_not_fit() -> None:
    lines = run_driver("--minutes", "0", "--only", "512-fixed,memory")
    assert [line.split(":")[0] for line in lines] == ["== 512-fixed", "== memory"]
    assert all("are left" in line for line in lines)


def test_rows_that_are_there_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    row = driver.ROWS[0]
    assert not row.is_done()
    results.write(row.out, {"checks": {"float32 within 1e-5": False}})
    assert not row.is_done()
    results.write(row.out, {"checks": {"float32 within 1e-5": True}})
    assert row.is_done()


def test_targets_take_the_best_peer_and_leave_bert_aside(tmp_path: Path) -> None:
    against = {"transformers float32": 2.0, "openvino float32": 0.9, "bert float32": 0.5}
    results.write(tmp_path / "512-fixed.json", {"speedups": {"ours float32": against}})
    lines = targets.table(tmp_path).splitlines()
    assert "| 512 fixed | transformers | float32 | 1.15 | 2.00 | met |" in lines
    assert "| 512 fixed | the best engine | float32 | 1.00 | 0.90 | not met |" in lines
    assert "| 512 fixed | transformers | bfloat16 | 1.40 | - |  |" in lines


def test_memory_is_better_when_less(tmp_path: Path) -> None:
    engines = {"ours float32": {"above_mb": 10.0}, "transformers float32": {"above_mb": 100.0}}
    results.write(tmp_path / "memory.json", {"engines": engines})
    line = "| memory | transformers | float32 | at most 0.25 | 0.10 | met |"
    assert line in targets.table(tmp_path).splitlines()


def test_surroundings_tell_the_machine() -> None:
    around = results.surroundings(num_threads=3)
    assert around["num_threads"] == 3
    assert {"date", "commit", "machine", "load_average", "packages"} <= around.keys()
    assert around["packages"]["torch"]


def test_packed_and_padded_examples_ask_for_the_same() -> None:
    assert sum(BATCHES["ragged"]) == 4_262
    found = example((7, 30, 2))
    batch = found.batch
    assert found.ids.shape == found.mask.shape == found.labels.shape == (3, 30)
    assert int(found.mask.sum()) == batch.batch.total_tokens == 39
    asked = found.labels >= 0
    assert found.labels[asked].tolist() == batch.labels.tolist()
    assert found.ids[asked].tolist() == batch.batch.token_ids[batch.masked_indices].tolist()
    assert 0 < batch.num_masked < 39


def test_blocks_hold_the_same_tokens_without_padding() -> None:
    found = example(BATCHES["blocks"], blocks=True, vocab_size=64)
    assert found.ids.shape == found.labels.shape == (4, 512) and found.mask.all()
    assert found.ids.flatten().tolist() == found.batch.batch.token_ids.tolist()
    assert found.ids.max() < 64
    asked = found.labels.flatten() >= 0
    assert asked.nonzero().flatten().tolist() == found.batch.masked_indices.tolist()


def test_both_sides_take_the_same_step(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    checks = check(argparse.Namespace(size="384", layers=1, cache=tmp_path))
    assert len(checks) in (2, 3)  # bfloat16's where the CPU has units for it
    assert all(list(checks.values())[:2])  # bfloat16's own check is for a model of full depth
