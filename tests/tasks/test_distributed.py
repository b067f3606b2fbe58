"""Pretraining with several processes: the same batches, losses and weights as with one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from tests.processes import results, run_together
from tests.tasks import groups
from tests.tasks.groups import rows
from tests.tasks.small import World

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
    # The model's files but for its weights are the very same.
    for path in (alone / "model").iterdir():
        if path.suffix != ".safetensors":
            assert path.read_bytes() == (output / "model" / path.name).read_bytes()


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
