"""Several phases in one run: where they begin, what goes over, and what does not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.test_trainer import rows
from tests.training.toy import TOKENS_A_STEP, ToyModule, ToyTask, phase, phases, settings, weights

from modernbert.errors import CheckpointError, RunError, SettingsError
from modernbert.training import checkpoint
from modernbert.training.optimizer import StableAdamW
from modernbert.training.task import Phases
from modernbert.training.trainer import Phase, Progress, Trainer, TrainingSettings
from modernbert.training.training_settings import ScheduleSettings, learning_rate


class Watching(ToyTask):
    """Notes from which places its steps were asked."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[Progress] = []

    def steps(self, progress: Progress) -> Any:
        self.places.append(progress)
        return super().steps(progress)


def two(num_steps: int = 6, **changes: Any) -> list[Phase]:
    return [
        phase(Watching(), settings(num_steps), "first"),
        phase(Watching(), settings(num_steps, weight_decay=0.5), "second", **changes),
    ]


def run(folder: Path, whole: list[Phase], **options: Any) -> Trainer:
    trainer = Trainer(ToyModule(), whole, folder, **options)
    assert trainer.run().status == "finished"
    return trainer


def test_one_run_with_its_records_in_one_file(tmp_path: Path) -> None:
    trainer = run(tmp_path, phases())
    assert trainer.progress == Progress(step=30, tokens=30 * TOKENS_A_STEP, position=11, phase=2)
    assert [(row["phase"], row["step"]) for row in rows(tmp_path, "phase")] == [
        ("first", 0),
        ("second", 10),
        ("third", 19),
    ]
    steps = rows(tmp_path, "step")
    assert [row["step"] for row in steps] == list(range(1, 31))
    assert [row["tokens"] for row in steps] == [TOKENS_A_STEP * n for n in range(1, 31)]
    assert [row["phase"] for row in steps] == ["first"] * 10 + ["second"] * 9 + ["third"] * 11
    evaluations = [(row["phase"], row["step"]) for row in rows(tmp_path, "evaluation")]
    assert [each for each in evaluations if each[1] in (10, 19)] == [
        ("first", 10),
        ("second", 10),
        ("second", 19),
        ("third", 19),
    ]


def test_the_rate_is_that_of_the_phase(tmp_path: Path) -> None:
    whole = phases()
    run(tmp_path, whole)
    begins, index = (0, 10, 19), {each.name: number for number, each in enumerate(whole)}
    for row in rows(tmp_path, "step"):
        number = index[row["phase"]]
        tokens = (row["step"] - begins[number]) * TOKENS_A_STEP
        there = whole[number].settings
        assert row["learning_rate"] == learning_rate(there.schedule, tokens, there.total_tokens)


def test_the_optimizer_goes_over_with_the_numbers_of_the_phase(tmp_path: Path) -> None:
    whole = two()
    schedule = ScheduleSettings(peak_learning_rate=0.005)
    whole[1] = phase(
        ToyTask(),
        TrainingSettings(total_tokens=320, schedule=schedule, weight_decay=0.5, beta2=0.9),
        "second",
    )
    seen: list[tuple[StableAdamW, dict[str, torch.Tensor]]] = []
    trainer = Trainer(ToyModule(), whole, tmp_path)

    def look(record: dict[str, Any]) -> None:
        if record["kind"] == "evaluation" and record["step"] == 6:
            state = checkpoint.optimizer_tensors(trainer.module, trainer.state.optimizer)
            seen.append((trainer.state.optimizer, {name: t.clone() for name, t in state.items()}))

    trainer.observers = (*trainer.observers, look)
    trainer.run()
    (before, averages), (after, same_averages) = seen
    assert averages.keys() == same_averages.keys() and averages
    assert all(torch.equal(averages[name], same_averages[name]) for name in averages)
    groups = [{k: v for k, v in g.items() if k != "params"} for g in after.param_groups]
    assert [group["peak_learning_rate"] for group in groups] == [0.005, 0.005]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert [group["betas"] for group in groups] == [(0.9, 0.9)] * 2
    assert before.param_groups[0]["peak_learning_rate"] == 0.02


def test_data_begins_anew_or_goes_on(tmp_path: Path) -> None:
    for goes_on, position in ((False, 0), (True, 6)):
        whole = two(goes_on=goes_on)
        run(tmp_path / str(goes_on), whole)
        assert isinstance(whole[1].task, Watching)
        assert whole[1].task.places == [
            Progress(step=6, tokens=6 * TOKENS_A_STEP, position=position, phase=1)
        ]


def test_a_phase_that_starts_from_an_earlier_one(tmp_path: Path) -> None:
    """What lies between leaves no trace but its steps and tokens."""
    with_detour = [
        *two(),
        phase(Watching(), settings(6), "third", start_from="first", goes_on=True),
    ]
    begun: list[bytes] = []
    ends: dict[str, bytes] = {}
    for number, each in enumerate(with_detour):
        changes = {
            "begin": lambda module: begun.append(weights(module)),
            "end": lambda module, name=each.name: ends.update({name: weights(module)}),
        }
        with_detour[number] = Phase(**{**vars(each), **changes})
    trainer = run(tmp_path, with_detour)
    assert begun[2] == ends["first"] != ends["second"]
    assert isinstance(with_detour[2].task, Watching)
    assert with_detour[2].task.places[0].position == 6
    assert trainer.progress.tokens == 18 * TOKENS_A_STEP
    assert (tmp_path / "checkpoints" / "end-of-first").is_dir()
    assert not (tmp_path / "checkpoints" / "end-of-second").exists()


def test_a_kept_end_that_is_damaged(tmp_path: Path) -> None:
    def damage(record: dict[str, Any]) -> None:
        if (record["kind"], record["step"]) == ("step", 15):
            (tmp_path / "checkpoints" / "end-of-first" / "model.safetensors").write_bytes(b"torn")

    with pytest.raises(CheckpointError, match=r"end-of-first: is damaged \(model.safetensors"):
        run(tmp_path, phases(), observers=[damage])


def test_what_a_step_is_too_large_is_taken_from_the_next_phase(tmp_path: Path) -> None:
    def lasting(tokens: int, name: str) -> Phase:
        schedule = ScheduleSettings(peak_learning_rate=0.01)
        return phase(ToyTask(), TrainingSettings(total_tokens=tokens, schedule=schedule), name)

    trainer = run(tmp_path, [lasting(100, "first"), lasting(28, "second"), lasting(10, "third")])
    assert [(row["phase"], row["step"]) for row in rows(tmp_path, "phase")] == [
        ("first", 0),
        ("second", 4),
        ("third", 4),
    ]
    assert trainer.progress.step == 5


def test_ends_and_evaluations_are_told(tmp_path: Path) -> None:
    told: list[tuple[str, Any]] = []
    whole = [
        Phase(
            **{
                **vars(each),
                "end": lambda _, name=each.name: told.append((name, "end")),
                "evaluated": lambda _, step, figures, name=each.name: told.append(
                    (name, (step, list(figures)))
                ),
            }
        )
        for each in two()
    ]
    run(tmp_path, whole)
    figures = ["held_out_loss"]
    assert told == [
        *[("first", (step, figures)) for step in (5, 6)],
        ("first", "end"),
        *[("second", (step, figures)) for step in (10, 12)],
        ("second", "end"),
    ]
    told.clear()
    assert Trainer(ToyModule(), whole, tmp_path).run().status == "already_finished"
    assert told == [("second", "end")]


def test_phases_of_another_recipe_are_refused(tmp_path: Path) -> None:
    run(tmp_path, two())
    other = two()
    other[1] = Phase(**{**vars(other[1]), "identity": {"theta": 7}})
    with pytest.raises(RunError, match=r"phases\.second\.theta is absent there and 7 here"):
        run(tmp_path, other)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "got none"),
        ([("a", None), ("a", None)], "'a' occurs twice"),
        ([("a", "b"), ("b", None)], "a: start_from: got 'b', expected an earlier phase: there is"),
        ([("a", None), ("b", "b")], "b: start_from: got 'b', expected an earlier phase: a"),
    ],
)
def test_phases_that_cannot_follow_each_other(
    names: list[tuple[str, str | None]], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Phases([phase(name=name, start_from=start_from) for name, start_from in names])
