"""Fine-tuning with several processes: the same steps, losses, scores and weights as with one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from tests.processes import results, run_together
from tests.tasks.labels import labelled
from tests.tasks.labels.rows import rows_for
from tests.tasks.ranking import ranked
from tests.tasks.tuning import groups

LABELS = ("classify", "regress", "tag", "answer")
RANKINGS = ("retrieve", "late-interaction", "sparse", "rerank")

# Steps of 5, 5, 5, 5 and 2 rows: some processes have fewer than others, or none.
NUM_ROWS, BATCH_SIZE = 22, 5


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, and rows for each verb."""
    folder = tmp_path_factory.mktemp("world")
    labelled.write_model(folder / "labels")
    ranked.write_model(folder / "ranking")
    for verb in LABELS:
        found = rows_for(verb)[:NUM_ROWS]
        labelled.write_rows(folder / f"{verb}.jsonl", found)
    ranked.write(folder / "ranking.jsonl", ranked.rows(NUM_ROWS, seed=0))
    ranked.write(folder / "held-out.jsonl", ranked.held_out())
    return folder


def recipe(world: Path, output: Path, verb: str, **changes: Any) -> dict[str, Any]:
    """A recipe of two epochs, whose steps are computed in several parts."""
    rows = world / f"{verb}.jsonl" if verb in LABELS else world / "ranking.jsonl"
    dev = rows if verb in LABELS else world / "held-out.jsonl"
    training: dict[str, Any] = {
        "epochs": 2,
        "learning_rate": 3e-3,
        "batch_size": BATCH_SIZE,
        "micro_batch_tokens": 40,
        "precision": "float32",
    }
    if verb == "late-interaction":
        training["dim"] = 16
    if verb == "sparse":  # whose largest weights change places where two are nearly equal
        training |= {"learning_rate": 1e-3, "document_regularization": 0.05}
    return {
        "model": str(world / ("labels" if verb in LABELS else "ranking")),
        "output": str(output),
        "data": {"train": str(rows), "dev": str(dev), "test": str(dev)},
        "training": {**training, **changes.pop("training", {})},
        "sweep": {"processes": 1},
        **changes,
    }


def records(output: Path, kind: str, name: str) -> list[float]:
    (log,) = (output / "runs").glob("*/metrics.jsonl")
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return [row[name] for row in found if row["kind"] == kind]


def weights(output: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in sorted((output / "model").rglob("*.safetensors")):
        found.update(safetensors.numpy.load_file(path))
    return found


def assert_alike(output: Path, expected: Path) -> None:
    for name in ("tokens", "num_targets"):
        assert records(output, "step", name) == records(expected, "step", name)
    given, wanted = (records(each, "step", "loss") for each in (output, expected))
    # Before the first update only the order of sums differs; each update makes more of that.
    assert given[0] == pytest.approx(wanted[0], rel=1e-5, abs=1e-6)
    assert given == pytest.approx(wanted, rel=3e-3, abs=1e-4)
    theirs = weights(expected)
    assert theirs
    for name, values in weights(output).items():
        np.testing.assert_allclose(values, theirs[name], atol=2e-3, err_msg=name)


@pytest.fixture(scope="module")
def alone(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a verb's run by one process, and its scores; each trained once."""
    made: dict[str, tuple[Path, Any]] = {}

    def get(verb: str) -> tuple[Path, Any]:
        if verb not in made:
            output = tmp_path_factory.mktemp("alone") / verb
            made[verb] = output, groups.tune(verb, recipe(world, output, verb))
        return made[verb]

    return get


def test_gathered_rows_give_their_gradients_back() -> None:
    answers = results(run_together(groups.gather, 3))
    assert [found for found, _ in answers] == [[[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]] * 3
    # Every process weighs the rows by 0 to 5 times its number: 1 + 2 + 3 times in all.
    assert [gradient for _, gradient in answers] == [[], [[0.0, 6.0]], [[12.0, 18.0], [24.0, 30.0]]]


@pytest.mark.parametrize("verb", [*LABELS, *RANKINGS])
def test_two_processes_train_as_one_does(
    world: Path, alone: Any, tmp_path: Path, verb: str
) -> None:
    expected, scores = alone(verb)
    output = tmp_path / "run"
    answers = results(run_together(groups.tune, 2, verb, recipe(world, output, verb)))
    assert answers[0] == answers[1] and answers[0][0] == scores[0] == 10
    assert_alike(output, expected)
    for given, wanted in zip(answers[0][1:], scores[1:], strict=True):
        assert given == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    ("verb", "size", "changes"),
    [
        ("classify", 4, {}),
        ("retrieve", 4, {}),
        ("classify", 2, {"computation": {"sharding": "full"}}),
        ("retrieve", 4, {"computation": {"sharding": "full"}}),
        ("late-interaction", 2, {"computation": {"sharding": "full"}}),
        ("rerank", 2, {"computation": {"sharding": "full", "recompute": True}}),
    ],
)
def test_more_processes_and_weights_in_shards(
    world: Path, alone: Any, tmp_path: Path, verb: str, size: int, changes: dict[str, Any]
) -> None:
    expected, _ = alone(verb)
    output = tmp_path / "run"
    made = recipe(world, output, verb, **changes)
    answers = results(run_together(groups.tune, size, verb, made))
    assert all(answer == answers[0] for answer in answers)
    assert_alike(output, expected)


@pytest.mark.parametrize("verb", ["classify", "retrieve"])
def test_a_run_goes_on_with_another_number_of_processes(
    world: Path, alone: Any, tmp_path: Path, verb: str
) -> None:
    expected, _ = alone(verb)
    output = tmp_path / "run"
    made = recipe(world, output, verb)
    shards = {**made, "computation": {"sharding": "full"}}
    assert results(run_together(groups.tune, 2, verb, made, (1, 3))) == [143, 143]
    assert results(run_together(groups.tune, 2, verb, shards, (0, 7))) == [143, 143]
    assert groups.tune(verb, made)[0] == 10
    assert_alike(output, expected)


def test_a_handful_of_rows_and_early_stopping(world: Path, tmp_path: Path) -> None:
    """What is decided between or after steps is decided alike in all processes."""
    for name, training in (
        ("few", {"few_shot": True, "epochs": 1, "batch_size": 33}),
        ("patient", {"patience": 1, "learning_rate": 1e-7, "epochs": 4}),
    ):
        made = [
            recipe(world, tmp_path / f"{name}-{size}", "classify", training=training)
            for size in (1, 2)
        ]
        expected = groups.tune("classify", made[0])
        answers = results(run_together(groups.tune, 2, "classify", made[1]))
        for steps, dev, test in answers:
            assert steps == expected[0]
            assert dev == pytest.approx(expected[1], abs=1e-3) and dev == pytest.approx(test)
    assert expected[0] == 10  # two epochs of four, the second no better


def test_a_sweep_in_processes_of_its_own_is_refused(world: Path, tmp_path: Path) -> None:
    made = recipe(world, tmp_path / "run", "classify", sweep={"processes": 2, "seeds": [0, 1]})
    for ended in run_together(groups.tune, 2, "classify", made):
        assert "sweep.processes: got 2, but torchrun has started 2 processes" in ended.error
