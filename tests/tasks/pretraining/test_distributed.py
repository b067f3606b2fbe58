"""Pretraining with several processes: the same batches, losses and weights as with one."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from tests.processes import results, run_together
from tests.tasks.pretraining import groups
from tests.tasks.pretraining.groups import rows
from tests.tasks.pretraining.small import World

from modernbert.files import TEMPORARY_PREFIX
from modernbert.hashes import HASHES_FILE

# Five bins a step: with two or four processes some have one more than others.
CHANGES: dict[str, Any] = {
    "batch__bins_per_step": 5,
    "batch__bins_per_micro_batch": 1,
    "training__total_tokens": 7_500,
}


def train(world: World, output: Path, size: int, fault: str = "", **changes: Any) -> list[Any]:
    changes = {**CHANGES, **changes}
    return run_together(groups.train, size, str(world.path), str(output), changes, fault)


def losses(output: Path) -> list[float]:
    return [row["loss"] for row in rows(output, "step")]


def weights(output: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(output / "model" / "model.safetensors")


def assert_alike(output: Path, expected: Path) -> None:
    assert losses(output) == pytest.approx(losses(expected), abs=1e-5)
    for name in ("tokens", "num_targets", "fill", "learning_rate"):
        same = [[row[name] for row in rows(each, "step")] for each in (output, expected)]
        assert same[0] == same[1], name
    for name in ("step", "held_out_loss", "held_out_accuracy"):
        same = [[row[name] for row in rows(each, "evaluation")] for each in (output, expected)]
        assert same[0] == pytest.approx(same[1], abs=1e-5), name
    theirs = weights(expected)
    for name, values in weights(output).items():
        np.testing.assert_allclose(values, theirs[name], atol=2e-4, err_msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    output = tmp_path_factory.mktemp("alone") / "run"
    assert results(train(world, output, 1)) == [["finished", 12, 0]]
    return output


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_every_number_of_processes_sees_the_same_batches(
    world: World, tmp_path: Path, size: int
) -> None:
    changes = {**CHANGES, "batch__bins_per_micro_batch": 2}
    arguments = (str(world.path), str(tmp_path), changes, 4)
    (expected,) = results(run_together(groups.batches, 1, *arguments))
    answers = results(run_together(groups.batches, size, *arguments))
    for index, step in enumerate(expected):
        seen = [answer[index] for answer in answers]
        ids = [bin_id for each in seen for bin_id in each["bins"]]
        assert sorted(ids) == sorted(step["bins"]) and len(ids) == 5
        assert {k: v for each in seen for k, v in each["bins"].items()} == step["bins"]
        assert [each["whole"] for each in seen] == [step["whole"]] * size
        assert len({each["num_micro_batches"] for each in seen}) == 1
        assert sum(each["num_targets"] for each in seen) == step["num_targets"]


@pytest.mark.parametrize(
    ("size", "changes"),
    [
        (2, {}),
        (4, {}),
        (2, {"computation": {"sharding": "full", "recompute": True}}),
    ],
    ids=["two", "four", "two in shards"],
)
def test_several_processes_train_as_one_does(
    world: World, alone: Path, tmp_path: Path, size: int, changes: dict[str, Any]
) -> None:
    output = tmp_path / "run"
    assert results(train(world, output, size, **changes)) == [["finished", 12, 0]] * size
    assert_alike(output, alone)
    # The model's files but for its weights and their hashes are the very same.
    for path in (alone / "model").iterdir():
        if path.suffix != ".safetensors" and path.name != HASHES_FILE:
            assert path.read_bytes() == (output / "model" / path.name).read_bytes()


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(
    world: World, alone: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    two = train(world, output, 2, "1:told:3")
    assert [each.result for each in two] == [["interrupted", 3, 143]] * 2
    sharded = {"computation": {"sharding": "full"}}
    shards = train(world, output, 2, "0:told:6", **sharded)
    assert [each.result for each in shards] == [["interrupted", 6, 143]] * 2
    one = train(world, output, 1, "0:told:8")
    assert [each.result for each in one] == [["interrupted", 8, 143]]
    assert results(train(world, output, 4)) == [["finished", 12, 0]] * 4
    assert_alike(output, alone)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    """An unbroken run of two processes."""
    output = tmp_path_factory.mktemp("together") / "run"
    assert results(train(world, output, 2)) == [["finished", 12, 0]] * 2
    return output


def assert_same_bytes(output: Path, expected: Path) -> None:
    for path in (expected / "model").iterdir():
        assert path.read_bytes() == (output / "model" / path.name).read_bytes(), path.name
    assert losses(output) == losses(expected)
    assert not list(output.rglob(f"{TEMPORARY_PREFIX}*"))


@pytest.mark.slow
def test_killed_processes_end_with_the_same_bytes(
    world: World, together: Path, tmp_path: Path
) -> None:
    """In the middle of a step, of a save, and of later steps; now the one, now the other."""
    output = tmp_path / "run"
    for death in ("1:killed:3", "0:save:4", "0:killed:7", "1:killed:10"):
        dead = int(death[0])
        ended = train(world, output, 2, death)
        assert ended[dead].exit_code == -9
        assert ended[1 - dead].error.startswith(f"ProcessError: process {dead}"), ended
    assert results(train(world, output, 2)) == [["finished", 12, 0]] * 2
    assert_same_bytes(output, together)


def test_a_signal_to_one_ends_all_after_the_same_step(
    world: World, together: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    assert [each.result for each in train(world, output, 2, "1:told:5")] == [
        ["interrupted", 5, 143]
    ] * 2
    assert [row["step"] for row in rows(output, "checkpoint")] == [4, 5]
    assert results(train(world, output, 2)) == [["finished", 12, 0]] * 2
    assert_same_bytes(output, together)


def test_a_step_that_is_no_number_in_one_process_is_skipped_by_all(
    world: World, together: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    assert results(train(world, output, 2, "1:nan:6")) == [["finished", 12, 0]] * 2
    (skipped,) = rows(output, "skipped")
    assert skipped["step"] == 6 and "the loss is nan" in skipped["reason"]
    assert len(losses(output)) == 11 and np.isfinite(losses(output)).all()
    assert losses(output)[:5] == losses(together)[:5]
    assert all(np.isfinite(values).all() for values in weights(output).values())


@pytest.mark.slow
def test_a_process_that_hangs_is_named(world: World, together: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    hasty = {"computation": {"timeout_seconds": 5.0}}
    first, second = train(world, output, 2, "1:hangs:6", **hasty)
    assert first.exit_code == 2 and second.exit_code == 9
    assert first.error.startswith("ProcessError: process 1 (id "), first.error
    assert re.search(r"did not come within \d+ s", first.error)
    assert results(train(world, output, 2)) == [["finished", 12, 0]] * 2
    assert_same_bytes(output, together)


def test_a_full_disk_in_a_save_stops_all_and_loses_nothing(
    world: World, together: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    first, second = train(world, output, 2, "0:full:8")
    assert first.error.startswith("CheckpointError:") and "could not be saved" in first.error
    assert "File too large" in first.error
    assert second.error.startswith("ProcessError: process 0 (id ") and "File too" in second.error
    names = sorted(path.name for path in (output / "checkpoints").iterdir())
    assert names == ["step-00000004"]
    assert results(train(world, output, 2)) == [["finished", 12, 0]] * 2
    assert_same_bytes(output, together)


@pytest.mark.parametrize("fault", ["1:torn:3", "1:lost:0"])
def test_shards_that_change_under_a_run_stop_all(tmp_path: Path, fault: str) -> None:
    world, output = World.write(tmp_path / "world"), tmp_path / "run"
    ended = train(world, output, 2, fault)
    errors = [each.error for each in ended]
    assert all(str(world.path) in error for error in errors), errors
    assert {error.partition(":")[0] for error in errors} <= {"ShardError", "ProcessError"}
    assert any(error.startswith("ShardError:") for error in errors)


def test_processes_with_other_recipes_or_a_run_of_another_are_refused(
    world: World, together: Path
) -> None:
    first, second = train(world, together, 2, seed=9)
    assert first.error.startswith("RunError:") and "belongs to another recipe" in first.error
    assert second.error.startswith("ProcessError: process 0 cannot continue: ")
    for ended in train(world, together, 2, "1:other:9"):
        assert ended.error.startswith("ProcessError: recipe: differs between process 1 and")
