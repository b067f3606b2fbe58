"""The loop: what a step does to the weights, and what the loop does around steps."""

import math
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.rounding import assert_equal_but_for_rounding
from tests.training.toy import (
    TOKENS_A_STEP,
    VOCABULARY,
    WIDTH,
    ToyModule,
    ToyTask,
    phase,
    settings,
    weights,
)

from modernbert.errors import CheckpointError, RunError, SettingsError, TrainingError
from modernbert.settings import load, to_toml
from modernbert.training import checkpoint
from modernbert.training.log import read_metrics
from modernbert.training.optimizer import parameter_groups
from modernbert.training.trainer import Progress, Step, Trainer, TrainingSettings
from modernbert.training.training_settings import learning_rate

Record = dict[str, Any]


def rows(folder: Path, kind: str) -> list[Record]:
    return [row for row in read_metrics(folder / "metrics.jsonl") if row["kind"] == kind]


def train(
    folder: Path, task: ToyTask | None = None, module: ToyModule | None = None, **options: Any
) -> ToyModule:
    module = module or ToyModule()
    in_flight = options.pop("in_flight", 0)
    trainer = Trainer(module, [phase(task, options.pop("settings", None))], folder, **options)
    trainer._steps_in_flight = in_flight  # of a GPU 1
    trainer.run()
    return module


def test_a_run_learns_and_leaves_its_records(tmp_path: Path) -> None:
    seen: list[Record] = []
    trainer = Trainer(
        ToyModule(), [phase(settings_=settings(60))], tmp_path, observers=[seen.append]
    )
    result = trainer.run()
    assert result.status == "finished" and result.exit_code == 0
    assert result.progress == Progress(step=60, tokens=60 * TOKENS_A_STEP, position=60)
    steps = rows(tmp_path, "step")
    assert [row["step"] for row in steps] == list(range(1, 61))
    assert steps[-1]["loss"] < steps[0]["loss"] - 1
    for row in steps:
        expected = learning_rate(trainer.settings.schedule, row["tokens"], 60 * TOKENS_A_STEP)
        assert row["learning_rate"] == expected and row["gradient_norm"] > 0
        assert row["fill"] == 1.0 and row["tokens_per_second"] > 0
        assert 0 <= row["data_wait_seconds"] <= row["seconds"]
    evaluations = rows(tmp_path, "evaluation")
    assert [row["step"] for row in evaluations] == list(range(0, 61, 5))
    assert evaluations[-1]["held_out_loss"] == result.evaluation["held_out_loss"]
    assert [record["kind"] for record in seen][0 :: len(seen) - 1] == ["start", "end"]
    assert seen == list(read_metrics(tmp_path / "metrics.jsonl"))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000056", "step-00000060"]


def test_micro_batches_equal_one_batch(tmp_path: Path) -> None:
    """Also when some of them have no target; dropout aside, which the toy draws in order."""
    trained = [
        train(tmp_path / str(index), task, ToyModule(dropout=0.0))
        for index, task in enumerate(
            [
                ToyTask(num_micro_batches=1),
                ToyTask(num_micro_batches=8),
                ToyTask(num_micro_batches=8, num_without_targets=2),
            ]
        )
    ]
    losses = [[row["loss"] for row in rows(tmp_path / str(i), "step")] for i in range(3)]
    for index in (1, 2):
        assert losses[index] == pytest.approx(losses[0], abs=1e-5)
        for one, many in zip(trained[0].parameters(), trained[index].parameters(), strict=True):
            torch.testing.assert_close(one, many, rtol=0, atol=2e-5)
    assert weights(trained[1]) == weights(trained[2])


def test_gradients_of_micro_batches_equal_those_of_one_batch(tmp_path: Path) -> None:
    gradients = []
    for task in (ToyTask(num_micro_batches=1), ToyTask(num_micro_batches=8, num_without_targets=1)):
        module = ToyModule(dropout=0.0)
        trainer = Trainer(module, [phase(task)], tmp_path)
        loss, _, norm = trainer._gradients(next(task.steps(Progress())))
        flat = torch.cat([p.grad.flatten() for p in module.parameters()])
        assert_equal_but_for_rounding(norm, flat.double().norm(), num_terms=len(flat))
        gradients.append((float(loss), flat))
    num_terms = 6 * WIDTH + 2 * VOCABULARY + TOKENS_A_STEP  # there and back, over the tokens
    for one, other in zip(*gradients, strict=True):
        assert_equal_but_for_rounding(one, other, num_terms=num_terms)


@pytest.mark.parametrize("every", [None, 1, 4])
def test_reading_a_step_when_the_next_is_on_its_way_changes_nothing(
    tmp_path: Path, every: int | None
) -> None:
    """What a GPU does: the same weights and the same records in the same order."""
    watchful = settings(
        spike_factor=1.5,
        skip_spikes=True,
        checkpoint_every_steps=every,
        evaluate_every_steps=every,
    )
    trained, told, launched = [], [], []
    for in_flight in (0, 1):
        task, seen = ToyTask(poisoned_steps=[7, 8], spiking_steps=[22]), []
        steps = task.steps

        def counted(progress: Progress, steps: Any = steps, seen: list[Any] = seen) -> Any:
            for step in steps(progress):
                seen.append(("launched", step.progress.step))
                yield step

        def observe(record: Record, seen: list[Any] = seen) -> None:
            if record["kind"] != "checkpoint":  # which is told when a thread is done
                seen.append((record["kind"], record["step"], record.get("loss")))

        task.steps = counted
        folder = tmp_path / str(in_flight)
        module = train(folder, task, settings=watchful, observers=[observe], in_flight=in_flight)
        trained.append(weights(module))
        launched.append(seen)
        told.append([each for each in seen if each[0] != "launched"])
    assert trained[0] == trained[1] and told[0] == told[1]
    assert [row["step"] for row in rows(tmp_path / "1", "skipped")] == [7, 8, 22]
    if every is None:
        place = [each[:2] for each in launched[1]].index
        assert all(place(("launched", n + 1)) < place(("step", n)) for n in (1, 5, 10, 29))


def test_gradients_are_clipped_before_the_update(tmp_path: Path) -> None:
    """Tiny limits make the weights of two runs agree whose losses differ in scale alone."""
    trained = []
    for name, scale in (("one", 1.0), ("ten", 10.0)):
        task = ToyTask()
        loss = task.loss
        task.loss = lambda *a, loss=loss, scale=scale, **k: scale * loss(*a, **k)
        clipped = settings(gradient_clipping=1e-2, optimizer="adamw", weight_decay=0.0)
        trained.append(train(tmp_path / name, task, settings=clipped))
    norms = [rows(tmp_path / name, "step")[0]["gradient_norm"] for name in ("one", "ten")]
    assert norms[1] == pytest.approx(10 * norms[0], rel=1e-4) and norms[0] > 1e-2
    for one, ten in zip(*(module.parameters() for module in trained), strict=True):
        torch.testing.assert_close(one, ten, rtol=0, atol=1e-3)


class _OnCuda(ToyTask):
    """The same micro-batch again and again, which is on the device already."""

    def steps(self, progress: Progress) -> Iterator[Step]:
        token_ids = torch.arange(TOKENS_A_STEP, device="cuda") % VOCABULARY
        for step in super().steps(progress):
            yield replace(step, micro_batches=[token_ids])

    def loss(self, module: ToyModule, micro_batch: torch.Tensor, *, step: int) -> torch.Tensor:
        logits = module(micro_batch).float()
        if step in self.poisoned_steps:
            logits = logits * math.nan
        return torch.nn.functional.cross_entropy(logits, micro_batch, reduction="sum")

    def evaluate(self, _: ToyModule) -> dict[str, float]:
        return {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_no_step_is_waited_for(tmp_path: Path) -> None:
    def strict(record: Record) -> None:
        if record["kind"] in ("step", "skipped") and record["step"] in (3, 25):
            mode = "error" if record["step"] == 3 else "default"
            torch.cuda.set_sync_debug_mode(mode)

    module = ToyModule().cuda()
    few = settings(
        evaluate_every_steps=None, checkpoint_every_steps=None, spike_factor=2.0, skip_spikes=True
    )
    task = _OnCuda(poisoned_steps=[12])
    try:
        Trainer(module, [phase(task, few)], tmp_path, observers=[strict], device="cuda").run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [row["step"] for row in rows(tmp_path, "skipped")] == [12]
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_evaluations_and_checkpoints_leave_the_weights_alone(tmp_path: Path) -> None:
    often = train(
        tmp_path / "often", settings=settings(evaluate_every_steps=1, checkpoint_every_steps=1)
    )
    never = train(
        tmp_path / "never",
        settings=settings(evaluate_every_steps=None, checkpoint_every_steps=None),
    )
    assert weights(often) == weights(never)
    assert [row["step"] for row in rows(tmp_path / "never", "evaluation")] == [0, 30]
    assert [row["step"] for row in rows(tmp_path / "never", "checkpoint")] == [30]


def test_checkpoints_by_time(tmp_path: Path) -> None:
    by_time = settings(6, checkpoint_every_steps=None, checkpoint_every_seconds=1e-9)
    train(tmp_path, settings=by_time)
    assert [row["step"] for row in rows(tmp_path, "checkpoint")] == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    trained = train(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    before.pop(tmp_path / "run.lock")
    module, task = ToyModule(seed=9), ToyTask()
    result = Trainer(module, [phase(task)], tmp_path).run()
    assert result.status == "already_finished" and result.progress.step == 30
    assert task.evaluations == [] and weights(module) == weights(trained)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    train(tmp_path, identity={"data": "books"})
    with pytest.raises(RunError, match=r"training\.seed is 0 there and 1 here"):
        train(tmp_path, identity={"data": "books"}, settings=settings(seed=1))
    with pytest.raises(RunError, match='data is "books" there and "films" here'):
        train(tmp_path, identity={"data": "films"})
    # What leaves the weights alone may change.
    train(tmp_path, identity={"data": "books"}, settings=settings(checkpoint_every_steps=7))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("step", [0, 5, 6])
def test_a_signal_ends_after_the_step_and_the_run_goes_on_later(
    tmp_path: Path, number: signal.Signals, code: int, step: int
) -> None:
    def interrupt(record: Record) -> None:
        kind = "step" if step else "evaluation"
        if (record["kind"], record["step"]) == (kind, step):
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    task = ToyTask()
    trainer = Trainer(ToyModule(), [phase(task)], tmp_path, observers=[interrupt])
    result = trainer.run()
    assert (result.status, result.progress.step, result.exit_code) == ("interrupted", step, code)
    assert signal.getsignal(number) == before
    resumed = train(tmp_path, module=ToyModule(seed=2))
    assert weights(resumed) == weights(train(tmp_path / "unbroken"))
    for kind in ("step", "evaluation"):
        unbroken = [row["step"] for row in rows(tmp_path / "unbroken", kind)]
        assert [row["step"] for row in rows(tmp_path, kind)] == unbroken


def test_a_signal_in_the_last_step_still_finishes(tmp_path: Path) -> None:
    def interrupt(record: Record) -> None:
        if (record["kind"], record["step"]) == ("step", 30):
            os.kill(os.getpid(), signal.SIGTERM)

    result = Trainer(ToyModule(), [phase()], tmp_path, observers=[interrupt]).run()
    assert result.status == "finished" and result.exit_code == 0
    assert rows(tmp_path, "evaluation")[-1]["step"] == 30


def test_a_damaged_checkpoint_is_logged_and_gone_back_of(tmp_path: Path) -> None:
    trained = train(tmp_path)
    (checkpoint.folder_of(tmp_path, 30) / "model.safetensors").write_bytes(b"torn")
    assert weights(train(tmp_path, module=ToyModule(seed=2))) == weights(trained)
    (warning,) = rows(tmp_path, "warning")
    assert warning["step"] == 28 and "step-00000030 is damaged" in warning["message"]
    assert [row["step"] for row in rows(tmp_path, "step")] == list(range(1, 31))


def test_another_number_of_threads_is_said(tmp_path: Path) -> None:
    number = torch.get_num_threads()
    train(tmp_path)
    (checkpoint.folder_of(tmp_path, 30) / "model.safetensors").write_bytes(b"torn")
    try:
        torch.set_num_threads(number + 1)
        train(tmp_path, module=ToyModule(seed=2))
    finally:
        torch.set_num_threads(number)
    *_, warning = rows(tmp_path, "warning")
    assert f"made with {number} threads and the run goes on with {number + 1}" in warning["message"]
    assert f"OMP_NUM_THREADS={number}" in warning["message"]


def test_a_failing_save_stops_the_run_and_a_restart_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        write = checkpoint._write_manifest

        def fail_at_8(folder: Path, *rest: Any) -> None:
            if folder.name.endswith("step-00000008"):
                raise OSError(28, "No space left on device")
            write(folder, *rest)

        patch.setattr(checkpoint, "_write_manifest", fail_at_8)
        with pytest.raises(CheckpointError, match="No space left"):
            train(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]
    resumed = train(tmp_path, module=ToyModule(seed=2))
    assert weights(resumed) == weights(train(tmp_path / "unbroken"))


def test_a_task_that_ends_too_early(tmp_path: Path) -> None:
    class ShortTask(ToyTask):
        def steps(self, progress: Progress) -> Any:
            for _, step in zip(range(3), super().steps(progress), strict=False):
                yield step

    with pytest.raises(TrainingError, match="no more steps after 96 tokens"):
        train(tmp_path, ShortTask())


def test_bfloat16_trains_float32_weights(tmp_path: Path) -> None:
    module = train(tmp_path, settings=settings(60, precision="bfloat16"))
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    losses = [row["loss"] for row in rows(tmp_path, "step")]
    assert losses[-1] < losses[0] - 1


@pytest.mark.parametrize(
    "changes",
    [
        {"keep_checkpoints": 0},
        {"evaluate_every_steps": -1},
        {"checkpoint_every_seconds": math.nan},
        {"seed": -1},
    ],
)
def test_settings_refuse(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"^{next(iter(changes))}: got "):
        settings(**changes)


def test_settings_refuse_a_schedule_longer_than_the_run() -> None:
    with pytest.raises(SettingsError, match="more than the run's 10 tokens"):
        TrainingSettings(total_tokens=10, schedule=settings().schedule)


def test_settings_survive_toml(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(to_toml(settings()))
    assert load(TrainingSettings, tmp_path / "recipe.toml") == settings()


def test_embeddings_learn_at_their_own_rate(tmp_path: Path) -> None:
    own = phase(settings_=settings(embedding_rate=4.0))
    assert own.full_identity["training"]["embedding_rate"] == 4.0
    assert "embedding_rate" not in phase(settings_=settings()).full_identity["training"]
    module = ToyModule()
    trainer = Trainer(module, [own], tmp_path)
    trainer.run()
    groups = trainer.state.optimizer.param_groups
    is_own = [group["params"][0] is module.embedding.weight for group in groups]
    embeddings = groups[is_own.index(True)]
    assert len(embeddings["params"]) == 1 and len(groups) == 3
    for group in groups:
        factor = 4 if group is embeddings else 1
        assert embeddings["lr"] * factor == pytest.approx(4 * group["lr"])


def test_a_phase_chooses_its_groups_and_when_it_ends(tmp_path: Path) -> None:
    """A group's own factor multiplies the rate; an early end is an end like any other."""
    module = ToyModule()
    seen: list[int] = []

    def groups(module: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        first, *others = parameter_groups(module, weight_decay)
        return [{**first, "rate_factor": 0.25}, *others]

    own = phase(
        settings_=settings(evaluate_every_steps=4),
        groups=groups,
        evaluates_first=False,
        evaluated=lambda _module, step, _figures: seen.append(step),
        stops=lambda: len(seen) == 2,
    )
    trainer = Trainer(module, [own], tmp_path)
    result = trainer.run()
    assert result.status == "finished" and trainer.state.finished
    assert seen == [4, 8] and result.progress.step == 8
    rates = [group["lr"] for group in trainer.state.optimizer.param_groups]
    assert rates[0] == pytest.approx(0.25 * rates[1])
