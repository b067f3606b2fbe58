"""Losses that are no numbers, or far too large: what a run does about them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.training.test_trainer import rows, train
from tests.training.toy import ToyModule, ToyTask, phase, settings, weights

from modernbert.errors import NonFiniteLossError, SettingsError
from modernbert.training import checkpoint
from modernbert.training.health import Health, Verdict
from modernbert.training.trainer import Trainer, TrainingSettings


def test_a_step_that_is_not_finite_is_skipped(tmp_path: Path) -> None:
    module = train(tmp_path, ToyTask(poisoned_steps=[7]))
    assert [row["step"] for row in rows(tmp_path, "step")] == [*range(1, 7), *range(8, 31)]
    (skipped,) = rows(tmp_path, "skipped")
    assert (
        skipped["step"] == 7 and skipped["loss"] is None and "the loss is nan" in skipped["reason"]
    )
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


def test_a_skipped_step_leaves_weights_and_averages_alone(tmp_path: Path) -> None:
    trainer = Trainer(ToyModule(), [phase(ToyTask(poisoned_steps=[5]))], tmp_path)
    seen: list[tuple[bytes, list[Any]]] = []

    def look(record: dict[str, Any]) -> None:
        if record["kind"] in ("step", "skipped") and record["step"] in (4, 5):
            state = checkpoint.optimizer_tensors(trainer.module, trainer.state.optimizer)
            averages = {key: tensor for key, tensor in state.items() if ".exp_avg" in key}
            assert averages
            seen.append((weights(trainer.module), [each.tolist() for each in averages.values()]))

    trainer.observers = (*trainer.observers, look)
    trainer.run()
    assert len(seen) == 2 and seen[0] == seen[1]


def test_a_gradient_that_is_not_finite_is_skipped_too(tmp_path: Path) -> None:
    module = ToyModule()
    module.dense.weight.register_hook(lambda gradient: gradient * math.inf)
    before = weights(module)
    with pytest.raises(
        NonFiniteLossError, match=r"^step 3: the loss is \d.*norm (inf|nan); 3 steps.*no earlier"
    ):
        train(tmp_path, module=module, settings=settings(max_skipped_steps=2))
    assert weights(module) == before


def test_too_many_in_a_row_go_back_to_an_earlier_checkpoint(tmp_path: Path) -> None:
    """Checkpoints come every 4 steps: the run is back at 8 when 11 to 13 are skipped."""
    few = settings(max_skipped_steps=2, keep_checkpoints=50)
    trainer = Trainer(ToyModule(), [phase(ToyTask(poisoned_steps=[11, 12, 13]), few)], tmp_path)
    at_13: list[bytes] = []

    def look(record: dict[str, Any]) -> None:
        if record["kind"] == "went_back":
            at_13.append(weights(trainer.module))

    trainer.observers = (*trainer.observers, look)
    assert trainer.run().progress.step == 30
    (back,) = rows(tmp_path, "went_back")
    assert (back["step"], back["to_step"], back["skipped_steps"]) == (13, 8, 3)
    other = ToyModule(seed=5)
    spare = Trainer(other, [phase(settings_=few)], tmp_path)
    kept = checkpoint.folder_of(tmp_path, 8)
    checkpoint.load(kept, other, spare.state.optimizer, trainer.identity)
    assert at_13 == [weights(other)]
    # No checkpoint is made of a run that is skipping, and one at once when it is back.
    assert [row["step"] for row in rows(tmp_path, "checkpoint")][:4] == [4, 8, 13, 16]


@pytest.mark.parametrize(("poison", "skipped"), [((11, 12, 13), None), ((11, 12, 13, 14), 4)])
def test_a_step_on_its_way_is_read_before_going_back(
    tmp_path: Path, poison: tuple[int, ...], skipped: int | None
) -> None:
    """When that one is good there is no need to go back."""
    few = settings(max_skipped_steps=2, keep_checkpoints=50)
    train(tmp_path, ToyTask(poisoned_steps=poison), settings=few, in_flight=1)
    assert [row["step"] for row in rows(tmp_path, "skipped")] == list(poison)
    backs = rows(tmp_path, "went_back")
    expected = [] if skipped is None else [(14, 8, 4)]
    assert [(row["step"], row["to_step"], row["skipped_steps"]) for row in backs] == expected


def test_only_a_checkpoint_before_the_last_good_step_is_of_use(tmp_path: Path) -> None:
    few = settings(max_skipped_steps=2, keep_checkpoints=50)
    train(tmp_path, ToyTask(poisoned_steps=[9, 10, 11]), settings=few)
    assert rows(tmp_path, "went_back")[0]["to_step"] == 4


def test_going_back_is_not_done_twice_to_one_checkpoint(tmp_path: Path) -> None:
    few = settings(max_skipped_steps=2)
    with pytest.raises(NonFiniteLossError, match=r"^step 16: .*3 steps .*going back did not help"):
        train(tmp_path, ToyTask(poisoned_steps=range(11, 40)), settings=few)
    assert len(rows(tmp_path, "went_back")) == 1
    # Started again the run comes to the same end, and without the poison to another.
    with pytest.raises(NonFiniteLossError, match=r"^step 16: "):
        train(tmp_path, ToyTask(poisoned_steps=range(11, 40)), settings=few)
    train(tmp_path, settings=few)
    assert rows(tmp_path, "step")[-1]["step"] == 30


def test_going_back_again_when_there_is_a_newer_checkpoint(tmp_path: Path) -> None:
    poison = [11, 12, 13, 21, 22, 23]
    train(tmp_path, ToyTask(poisoned_steps=poison), settings=settings(max_skipped_steps=2))
    assert [row["to_step"] for row in rows(tmp_path, "went_back")] == [8, 16]


@pytest.mark.parametrize("in_flight", [0, 1])
@pytest.mark.parametrize("stop", range(5, 25))
def test_a_run_that_skips_and_goes_back_resumes_exactly(
    tmp_path: Path, stop: int, in_flight: int
) -> None:
    few = settings(max_skipped_steps=2, spike_factor=1.5, skip_spikes=True)

    def task() -> ToyTask:
        return ToyTask(poisoned_steps=[7, 11, 12, 13], spiking_steps=[24])

    whole = train(tmp_path / "whole", task(), settings=few, in_flight=in_flight)
    assert [row["step"] for row in rows(tmp_path / "whole", "skipped")] == [7, 11, 12, 13, 24]

    def die(record: dict[str, Any]) -> None:
        if record["kind"] in ("step", "skipped") and record["step"] == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", task(), settings=few, observers=[die], in_flight=in_flight)
    resumed = train(
        tmp_path / "broken", task(), ToyModule(seed=3), settings=few, in_flight=in_flight
    )
    assert weights(resumed) == weights(whole)
    for kind in ("step", "skipped", "spike", "went_back"):
        broken, unbroken = (
            [(row["step"], row.get("loss")) for row in rows(tmp_path / name, kind)]
            for name in ("broken", "whole")
        )
        assert broken == unbroken


def test_spikes_are_told_and_skipped_only_when_asked(tmp_path: Path) -> None:
    for name, skip in (("told", False), ("skipped", True)):
        watchful = settings(spike_factor=3.0, skip_spikes=skip)
        train(tmp_path / name, ToyTask(spiking_steps=[20]), settings=watchful)
        (spike,) = rows(tmp_path / name, "spike")
        assert spike["step"] == 20 and spike["loss"] > 3 * spike["median"]
        assert [row["step"] for row in rows(tmp_path / name, "skipped")] == [20] * skip
    train(tmp_path / "blind", ToyTask(spiking_steps=[20]))
    assert not rows(tmp_path / "blind", "spike")


def judged(
    health: Health, losses: list[float], watchful: TrainingSettings, first_step: int = 1
) -> list[Verdict]:
    """The verdicts on steps that are taken when their device takes them."""
    verdicts = []
    for step, loss in enumerate(losses, first_step):
        taken = math.isfinite(loss) and loss <= health.limit(step, watchful)
        verdicts.append(health.judge(step, loss, 1.0, watchful, taken=taken))
    return verdicts


def test_the_first_steps_are_no_measure() -> None:
    """Sixteen are; and of the step before the one that is judged nothing is known yet."""
    for ordinary, spikes in ((14, False), (15, True)):
        watchful = settings(spike_factor=2.0)
        verdicts = judged(Health(), [0.1, 9.0, *[1.0] * ordinary, 9.0], watchful)
        assert [verdict.spike is not None for verdict in verdicts][:-1] == [False] * (2 + ordinary)
        assert (verdicts[-1].spike is not None) == spikes


@given(st.lists(st.floats(0.1, 20) | st.just(math.nan), min_size=20, max_size=200))
def test_the_limit_is_the_same_before_and_after_the_last_step_is_read(
    losses: list[float],
) -> None:
    health, strict = Health(), settings(spike_factor=1.5, skip_spikes=True)
    for step, loss in enumerate(losses, 1):
        taken = math.isfinite(loss) and loss <= health.limit(step, strict)
        before = health.limit(step + 1, strict)
        health.judge(step, loss, 1.0, strict, taken=taken)
        assert health.limit(step + 1, strict) == before


def test_what_health_remembers_survives_json() -> None:
    health, watchful = Health(), settings(spike_factor=2.0)
    judged(health, [1.1, 1.2, math.nan], watchful)
    other = Health()
    other.restore(json.loads(json.dumps(health.state())))
    assert other.state() == health.state()
    more = [3.0] * 40
    assert judged(other, more, watchful, 4) == judged(health, more, watchful, 4)
    assert other.state() == health.state()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"max_skipped_steps": -1}, "max_skipped_steps"),
        ({"spike_factor": 1.0}, "spike_factor"),
        ({"skip_spikes": True}, "skip_spikes"),
    ],
)
def test_settings_refuse(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: "):
        settings(**changes)
