"""The training loop, for any module and any task.

A run is a pure function of its module's first weights, its task and its settings: the rate
depends on tokens alone, the random numbers of a step on the seed and the step alone. So a run
that was killed and is started again ends with the very weights of an unbroken one.

Several processes go through the loop together, each with its share of every step. They meet twice
a step: before it, to add up its targets, and after it, to add up its gradients. What concerns all
of them (when to save, whether to stop) is agreed on there. Process 0 alone keeps the run's folder.
"""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modernbert.errors import NonFiniteLossError, TrainingError
from modernbert.files import remove_leftovers
from modernbert.training import checkpoint, run_folder
from modernbert.training.background import BackgroundSaver
from modernbert.training.computation import Computation
from modernbert.training.health import Health
from modernbert.training.interruption import Interruption
from modernbert.training.isolation import seed_step, undisturbed
from modernbert.training.log import MetricsLog, Observer
from modernbert.training.machine import peak_memory_bytes
from modernbert.training.optimizer import StableAdamW
from modernbert.training.phase import Phase, Phases
from modernbert.training.precision import autocast, compute_dtype
from modernbert.training.schedule import learning_rate
from modernbert.training.task import Progress, Result, Step, Task
from modernbert.training.training_settings import TrainingSettings

__all__ = ["Phase", "Progress", "Result", "Step", "Task", "Trainer", "TrainingSettings"]

METRICS_FILE = "metrics.jsonl"
_SPEED_WINDOW_STEPS = 20


class Trainer:
    """Trains a module in one phase or several inside a run folder; `run` is the whole of it.

    module: on `device`, float32 weights; made the same way at each start, seed included.
    phases: one after another; their tasks move the micro-batches to the device themselves.
    folder: of the run; made on the first start, refused when it is another run's.
    observers: called with each record, after `metrics.jsonl` has it: `start` or `resume`,
        `phase` where one begins, `warning`, `step` or `skipped`, `spike`, `went_back`,
        `evaluation`, `checkpoint`, `end`.
    computation: how the module is computed, and with which other processes; see `prepare`.
    identity: what else makes the run this run (data, model), as JSON values.
    describe: what the first record of a start tells besides, as JSON values.

    Raises:
        SettingsError: phases that cannot follow each other; see `Phases`.
    """

    def __init__(
        self,
        module: nn.Module,
        phases: Sequence[Phase],
        folder: Path,
        *,
        observers: Sequence[Observer] = (),
        device: torch.device | str = "cpu",
        computation: Computation | None = None,
        identity: Mapping[str, Any] | None = None,
        describe: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.module, self.phases = module, Phases(phases)
        self.computation = computation or Computation()
        self.group = self.computation.group
        self.folder, self.device = folder, torch.device(device)
        self._describe = describe
        self.identity = run_folder.plain(
            {**(identity or {}), "phases": {each.name: each.full_identity for each in phases}}
        )
        self.observers: tuple[Observer, ...] = (MetricsLog(folder / METRICS_FILE), *observers)
        self.progress = Progress()
        self.optimizer = self._make_optimizer()
        self.health = Health()
        self.evaluation: dict[str, float] = {}
        self._saver = BackgroundSaver(folder, self.identity, group=self.group)
        self._evaluated_step = self._saved_step = -1
        self._saved_at = time.monotonic()
        self._save_is_due = self._stop_is_agreed = False
        self._interruption = Interruption()
        self._speed: deque[tuple[int, float]] = deque(maxlen=_SPEED_WINDOW_STEPS)

    @property
    def phase(self) -> Phase:
        """The phase in which the run is."""
        phase: Phase = self.phases[self.progress.phase]
        return phase

    @property
    def settings(self) -> TrainingSettings:
        """Those of the phase."""
        return self.phase.settings

    @property
    def finished(self) -> bool:
        """Whether all tokens of all phases were seen."""
        return self._in_last_phase and self._phase_is_over

    @property
    def _in_last_phase(self) -> bool:
        return self.progress.phase == len(self.phases) - 1

    @property
    def _phase_is_over(self) -> bool:
        return self.phases.is_over(self.progress) or self.phase.stops()

    def run(self) -> Result:
        """Train from the last checkpoint, or the beginning, to the end or a signal.

        Raises:
            RunError: the folder is another run's or in use, or cannot be written.
            CheckpointError: no usable checkpoint is left, or one cannot be saved.
            NonFiniteLossError: the loss or a gradient stays NaN or infinite; see `_go_back`.
            SettingsError: a precision that the device lacks.
            ProcessError: another process cannot go on, is gone, or does not come.
        """
        for phase in self.phases:
            compute_dtype(self.device, phase.settings.precision)
        self.group.agree("recipe", json.dumps(self.identity, sort_keys=True))
        with self.group.watched(), self._own_folder(), self._interruption:
            warnings = self._restore()
            self.phase.begin(self.module)
            if self.finished:
                self.phase.end(self.module)
                return Result(status="already_finished", progress=self.progress, evaluation={})
            self._announce(warnings)
            self._train()
            result = self._result()
            self.observe("end", status=result.status)
            return result

    @contextmanager
    def _own_folder(self) -> Iterator[None]:
        """Make the run's folder this run's, and hold it: process 0 does, for all."""
        with ExitStack() as stack:

            def hold() -> None:
                stack.enter_context(run_folder.locked(self.folder))
                run_folder.claim(self.folder, self.identity)
                remove_leftovers(self.folder)

            self.group.first(hold)
            yield

    def _make_optimizer(self) -> StableAdamW:
        """One with the phase's numbers; above all, weight decay is relative to its peak rate."""
        settings = self.settings
        return StableAdamW(
            self.phase.groups(self.module, settings.weight_decay),
            peak_learning_rate=settings.schedule.peak_learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
        )

    def _restore(self) -> tuple[str, ...]:
        """Load the newest checkpoint, if there is one; what was set aside is in the warnings."""
        loaded = checkpoint.load_latest(
            self.folder, self.module, self.optimizer, self.identity, self.group
        )
        if loaded is None:
            return ()
        place = dict(loaded.progress)
        self._evaluated_step = place.pop("evaluated_step")
        self.health.restore(place.pop("health"))
        self.progress = Progress(**place)
        self._renew_optimizer()
        self._saved_step = self.progress.step
        return loaded.warnings

    def _renew_optimizer(self) -> None:
        """Give the optimizer the numbers of the phase; what it knows of each tensor stays."""
        known = self.optimizer.state
        self.optimizer = self._make_optimizer()
        self.optimizer.state.update(known)

    def _announce(self, warnings: Sequence[str]) -> None:
        """The first records of this start, which tell the logs where it takes up."""
        resumed = self._saved_step >= 0
        self.observe(
            "resume" if resumed else "start",
            tokens=self.progress.tokens,
            total_tokens=self.phases.total_tokens,
            evaluated_step=self._evaluated_step,
            phases=[phase.name for phase in self.phases[: self.progress.phase + 1]],
            num_processes=self.group.size,
            **self._describe(),
        )
        for message in warnings:
            self.observe("warning", message=message)
        if not resumed:
            self._announce_phase()

    def _announce_phase(self) -> None:
        tokens, total = self.progress.tokens, self.settings.total_tokens
        self.observe("phase", tokens=tokens, phase_tokens=total)

    def _train(self) -> None:
        """Phase after phase, until the end or a signal."""
        self.module.train()
        self._train_phase()
        while self._phase_is_over:
            self._keep_end()
            self.phase.end(self.module)
            if self._in_last_phase or self._is_to_stop:
                return
            self._enter_next_phase()
            self._train_phase()

    def _enter_next_phase(self) -> None:
        """Go over to the next phase, from the state of now or from the end of an earlier one."""
        position = self.progress.position
        phase: Phase = self.phases[self.progress.phase + 1]
        if phase.start_from is not None:
            folder = checkpoint.folder_of_end(self.folder, phase.start_from)
            place = checkpoint.load(folder, self.module, self.optimizer, self.identity, self.group)
            position = place["position"]
        self.progress = replace(
            self.progress,
            phase=self.progress.phase + 1,
            position=position if phase.goes_on else 0,
        )
        self._evaluated_step = -1
        self._renew_optimizer()
        phase.begin(self.module)
        self._announce_phase()

    def _keep_end(self) -> None:
        """Keep the state at the end of a phase where a later one starts from it."""
        if not self.phases.is_source(self.progress.phase):
            return
        folder = checkpoint.folder_of_end(self.folder, self.phase.name)
        if not self.group.first(folder.exists):
            checkpoint.save(
                folder, self.module, self.optimizer, self._place(), self.identity, self.group
            )

    def _train_phase(self) -> None:
        """Steps, with evaluations and checkpoints between, until the phase's end or a signal."""
        steps = self.phase.task.steps(self.progress)
        try:
            # After a signal there is no time to evaluate, unless the last step was taken; the
            # checkpoint remembers that it is due.
            while not (self._phase_is_over or self._is_to_stop):
                self._evaluate_when_due()
                self._save_when_due()
                if not self._phase_is_over:  # which an evaluation may decide
                    self._go_on(steps)
            if self._phase_is_over:
                self._evaluate_when_due()
            self._save()
            self._saver.wait()
            self._report_saves()
        finally:
            self._saver.close()
            if (close := getattr(steps, "close", None)) is not None:
                close()  # lets a task that works ahead stop its thread

    def _go_on(self, steps: Iterator[Step]) -> None:
        """Take the next step, unless a process was told to stop meanwhile."""
        started = time.perf_counter()
        step = self._next(steps)
        waited = time.perf_counter() - started
        step = self._meet(step)
        if not self._stop_is_agreed:
            self._take(step, waited)

    def _meet(self, step: Step) -> Step:
        """The step with the targets of all; they agree on whether to stop, or to save after it."""
        every = self.settings.checkpoint_every_seconds
        elapsed = time.monotonic() - self._saved_at
        rows = self.group.gather(
            [
                step.num_targets,
                self._is_told_to_stop,
                every is not None and elapsed >= every,
            ]
        )
        num_targets, signals, _ = (sum(column) for column in zip(*rows, strict=True))
        self._stop_is_agreed = signals > 0
        self._save_is_due = bool(rows[0][2])  # by the clock of process 0
        return replace(step, num_targets=int(num_targets))

    @property
    def _is_told_to_stop(self) -> bool:
        """Whether this process was."""
        return self._interruption.signal_number is not None

    @property
    def _is_to_stop(self) -> bool:
        """Whether a process was told to stop, as far as all of them know."""
        return self._stop_is_agreed or (self.group.size == 1 and self._is_told_to_stop)

    def _next(self, steps: Iterator[Step]) -> Step:
        step = next(steps, None)
        if step is None:
            raise TrainingError(
                f"the task has no step after {self.progress.tokens} tokens, but the run is to "
                f"see {self.phases.total_tokens}"
            )
        return step

    def _take(self, step: Step, data_wait_seconds: float) -> None:
        """One step: gradients of all micro-batches, one update unless it is bad, one record."""
        started = time.perf_counter() - data_wait_seconds
        rate = learning_rate(
            self.settings.schedule,
            self.phases.tokens_in(step.progress),
            self.settings.total_tokens,
        )
        loss, gradient_norm = self._gradients(step)
        verdict = self.health.judge(loss, gradient_norm, self.settings)
        if verdict.reason is None:
            self._update(rate)
        self.optimizer.zero_grad()
        self.progress = step.progress  # the data of a skipped step has been seen all the same
        if verdict.spike is not None:
            self.observe("spike", tokens=step.progress.tokens, loss=loss, median=verdict.spike)
        seconds = time.perf_counter() - started
        self.observe(
            "step" if verdict.reason is None else "skipped",
            tokens=step.progress.tokens,
            loss=_finite(loss),
            learning_rate=rate,
            gradient_norm=_finite(gradient_norm),
            num_tokens=step.num_tokens,
            num_targets=step.num_targets,
            tokens_per_second=self._tokens_per_second(step.num_tokens, seconds),
            fill=step.fill,
            data_wait_seconds=data_wait_seconds,
            memory_bytes=peak_memory_bytes(self.device),
            **step.figures,
            seconds=seconds,
            **({} if verdict.reason is None else {"reason": verdict.reason}),
        )
        if self.health.skipped_in_a_row > self.settings.max_skipped_steps:
            self._go_back(verdict.reason or "")

    def _update(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate_factor", 1.0)
        self.optimizer.step()

    def _gradients(self, step: Step) -> tuple[float, float]:
        """Accumulate the gradients of the step's mean loss; its value and the gradients' norm."""
        seed_step(self.phase.settings.seed, step.progress.step, self.group.rank)
        total = torch.zeros((), device=self.device)
        last = len(step.micro_batches) - 1
        for index, micro_batch in enumerate(step.micro_batches):
            loss = self.computation.run(partial(self._loss, micro_batch, step.progress.step))
            loss = loss / max(1, step.num_targets)
            if loss.requires_grad:  # a micro-batch without a target may give a bare zero
                self.computation.before_backward(is_last=index == last)
                loss.backward()
            total += loss.detach()
        told = torch.full_like(total, self._is_told_to_stop)
        figures = torch.stack([total, told])
        norm = self.computation.reduce(self.module, figures).to(total)
        # The step's one readback.
        value, told_to_stop, gradient_norm = torch.cat([figures, norm[None]]).tolist()
        self._stop_is_agreed = self.group.size > 1 and told_to_stop > 0
        return value, gradient_norm

    def _loss(self, micro_batch: Any, step: int) -> torch.Tensor:
        with autocast(self.device, self.settings.precision):
            return self.phase.task.loss(self.module, micro_batch, step=step).float()

    def _go_back(self, reason: str) -> None:
        """Take the weights of an earlier checkpoint and go on past the data that was skipped.

        Steps, tokens and the place in the data stay as they are: what was seen is seen. As the
        weights are those of the last step that was taken, only a checkpoint before that one is of
        any use; and when the steps after it fail again, going back once more would not help.

        Raises:
            NonFiniteLossError: there is no such checkpoint, or the run went back to it before.
        """
        skipped, last_taken = self.health.skipped_in_a_row, self.progress.step
        last_taken -= skipped
        self._saver.wait()
        found = self.group.first(
            lambda: _as_json(checkpoint.newest_before(self.folder, last_taken))
        )
        if found is None or found[1] <= self.health.went_back_at:
            advice = "look at the data, or begin a run with a lower learning rate"
            if found is not None:
                advice += f" from {found[0]}"
            raise NonFiniteLossError(
                f"step {self.progress.step}: {reason}; {skipped} steps in a row were skipped and "
                f"{'going back did not help' if found else 'there is no earlier checkpoint'}; "
                f"{advice}"
            )
        folder, step = Path(found[0]), found[1]
        checkpoint.load(folder, self.module, self.optimizer, self.identity, self.group)
        self.health.skipped_in_a_row, self.health.went_back_at = 0, self.progress.step
        self.observe("went_back", tokens=self.progress.tokens, to_step=step, skipped_steps=skipped)
        self._save()

    def _evaluate_when_due(self) -> None:
        """Evaluate at a phase's beginning, its end and every so many steps, each once."""
        step, every = self.progress.step, self.settings.evaluate_every_steps
        begins = self._evaluated_step < 0 and self.phase.evaluates_first
        again = every is not None and step > 0 and step % every == 0
        due = begins or again or self._phase_is_over
        if not due or self._evaluated_step == step:
            return
        started = time.perf_counter()
        with undisturbed(self.module, self.device), autocast(self.device, self.settings.precision):
            self.evaluation = self.computation.run(lambda: self.phase.task.evaluate(self.module))
        self._evaluated_step = step
        if self.evaluation:
            seconds = time.perf_counter() - started
            figures = {"tokens": self.progress.tokens, **self.evaluation, "seconds": seconds}
            self.observe("evaluation", **figures)
            if not begins:
                self.phase.evaluated(self.module, step, self.evaluation)

    def _save_when_due(self) -> None:
        """Save every so many steps or seconds, but no state that cannot be gone back to."""
        self._report_saves()
        every, step = self.settings.checkpoint_every_steps, self.progress.step
        due = self._save_is_due or (every is not None and step > 0 and step % every == 0)
        if due and not self.health.skipped_in_a_row:
            self._save()

    def _save(self) -> None:
        """Begin to save the run's state unless the newest checkpoint has it already."""
        if self._saved_step == self.progress.step:
            return
        folder = checkpoint.folder_of(self.folder, self.progress.step)
        keep = self.settings.keep_checkpoints
        self._saver.save(folder, self.module, self.optimizer, self._place(), keep=keep)
        self._saved_step, self._saved_at = self.progress.step, time.monotonic()

    def _report_saves(self) -> None:
        """Tell of the checkpoints that have come to be since; or of one that could not."""
        for saved in self._saver.finished():
            self.observe(
                "checkpoint",
                step=saved.progress["step"],
                phase=self.phases[saved.progress["phase"]].name,
                tokens=saved.progress["tokens"],
                path=str(saved.folder),
                seconds=saved.seconds,
                paused_seconds=saved.paused_seconds,
            )

    def _place(self) -> dict[str, Any]:
        """All of a checkpoint that is no tensor, as JSON values."""
        return {
            **asdict(self.progress),
            "evaluated_step": self._evaluated_step,
            "health": self.health.state(),
        }

    def observe(self, kind: str, **values: Any) -> None:
        """Make a record of the run's place and tell it to every observer, in process 0."""
        if not self.group.is_first:
            return
        record = {"kind": kind, "step": self.progress.step, "phase": self.phase.name, **values}
        for observer in self.observers:
            observer(record)

    def _tokens_per_second(self, num_tokens: int, seconds: float) -> float:
        """Over the last steps together, waiting for data included."""
        self._speed.append((num_tokens, seconds))
        return sum(n for n, _ in self._speed) / max(1e-9, sum(s for _, s in self._speed))

    def _result(self) -> Result:
        if self.finished:
            return Result(status="finished", progress=self.progress, evaluation=self.evaluation)
        return Result(
            status="interrupted",
            progress=self.progress,
            evaluation=self.evaluation,
            signal_number=self._signal_number(),
        )

    def _signal_number(self) -> int:
        """The signal that any of the processes got."""
        return int(
            max(number for (number,) in self.group.gather([self._interruption.signal_number or 0]))
        )


def _as_json(found: tuple[Path, int] | None) -> list[Any] | None:
    return None if found is None else [str(found[0]), found[1]]


def _finite(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None
