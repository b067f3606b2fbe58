"""The training loop, for any module and any task.

A run is a pure function of its module's first weights, its task and its settings: the rate
depends on tokens alone, the random numbers of a step on the seed and the step alone. So a run
that was killed and is started again ends with the very weights of an unbroken one.

Several processes go through the loop together, each with its share of every step. They meet twice
a step: before it, to add up its targets, and after it, to add up its gradients. What concerns all
of them (when to save, whether to stop) is agreed on there. Process 0 alone keeps the run's folder.

A GPU is not waited for: it decides by itself whether a step is taken, and what became of a step is
read when the next one is on its way.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modernbert.devices import to_host, underway
from modernbert.errors import TrainingError
from modernbert.files import remove_leftovers
from modernbert.training import run_folder
from modernbert.training.computation import (
    Computation,
    autocast,
    compute_dtype,
    seed_step,
    undisturbed,
)
from modernbert.training.health import LaunchedStep, Stopwatch, step_record
from modernbert.training.interruption import Interruption
from modernbert.training.log import MetricsLog, Observer, peak_memory_bytes
from modernbert.training.optimizer import Update, clip_gradients
from modernbert.training.run_state import RunState
from modernbert.training.task import Phase, Progress, Result, Step, Task
from modernbert.training.training_settings import TrainingSettings, learning_rate

__all__ = ["Phase", "Progress", "Result", "Step", "Task", "Trainer", "TrainingSettings"]

METRICS_FILE = "metrics.jsonl"


class Trainer:
    """Trains a module in one phase or several inside a run folder; `run` is the whole of it.

    Args:
        module: On `device`, float32 weights; made the same way at each start, seed included.
        phases: One after another; their tasks move the micro-batches to the device themselves.
        folder: Of the run; made on the first start, refused when it is another run's.
        observers: Called with each record, after `metrics.jsonl` has it: `start` or `resume`,
            `phase` where one begins, `warning`, `step` or `skipped`, `spike`, `went_back`,
            `evaluation`, `checkpoint`, `end`.
        computation: How the module is computed, and with which other processes; see `prepare`.
        identity: What else makes the run this run (data, model), as JSON values.
        describe: What the first record of a start tells besides, as JSON values.
        update: What does the optimizer's arithmetic on the CPU; see `StableAdamW`.

    Raises:
        SettingsError: Phases that cannot follow each other; see `Phases`.
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
        update: Update | None = None,
    ) -> None:
        self.computation = computation or Computation()
        self.group = self.computation.group
        self.device = torch.device(device)
        self._describe = describe
        self.identity = run_folder.plain(
            {**(identity or {}), "phases": {each.name: each.full_identity for each in phases}}
        )
        self.state = RunState(module, phases, folder, self.identity, self.group, update)
        self.observers: tuple[Observer, ...] = (MetricsLog(folder / METRICS_FILE), *observers)
        self.evaluation: dict[str, float] = {}
        self._save_is_due = self._stop_is_agreed = False
        self._interruption = Interruption()
        self._watch = Stopwatch()
        self._launched: deque[LaunchedStep] = deque()
        self._steps_in_flight = int(self.device.type == "cuda")

    @property
    def module(self) -> nn.Module:
        """What is trained."""
        return self.state.module

    @property
    def progress(self) -> Progress:
        """The run's place."""
        return self.state.progress

    @property
    def phase(self) -> Phase:
        """The phase in which the run is."""
        return self.state.phase

    @property
    def settings(self) -> TrainingSettings:
        return self.state.settings

    def run(self) -> Result:
        """Train from the last checkpoint, or the beginning, to the end or a signal.

        Raises:
            RunError: The folder is another run's or in use, or cannot be written.
            CheckpointError: No usable checkpoint is left, or one cannot be saved.
            NonFiniteLossError: The loss or a gradient stays NaN or infinite; see
                `RunState.go_back`.
            SettingsError: A precision that the device lacks.
            ProcessError: Another process cannot go on, is gone, or does not come.
        """
        for phase in self.state.phases:
            compute_dtype(self.device, phase.settings.precision)
        self.group.agree("recipe", json.dumps(self.identity, sort_keys=True))
        with self.group.watched(), self._own_folder(), self._interruption:
            warnings = self.state.restore()
            self.phase.begin(self.module)
            if self.state.finished:
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
                stack.enter_context(run_folder.locked(self.state.folder))
                run_folder.claim(self.state.folder, self.identity)
                remove_leftovers(self.state.folder)

            self.group.first(hold)
            yield

    def _announce(self, warnings: Sequence[str]) -> None:
        """The first records of this start, which tell the logs where it takes up."""
        resumed = self.state.saved_step >= 0
        self.observe(
            "resume" if resumed else "start",
            tokens=self.progress.tokens,
            total_tokens=self.state.phases.total_tokens,
            evaluated_step=self.state.evaluated_step,
            phases=[phase.name for phase in self.state.phases[: self.progress.phase + 1]],
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
        while self.state.phase_is_over:
            self.state.keep_end()
            self.phase.end(self.module)
            if self.state.in_last_phase or self._is_to_stop:
                return
            self.state.enter_next_phase()
            self._announce_phase()
            self._train_phase()

    def _train_phase(self) -> None:
        """Steps, with evaluations and checkpoints between, until the phase's end or a signal."""
        steps = self.phase.task.steps(self.progress)
        try:
            # After a signal there is no time to evaluate, unless the last step was taken; the
            # checkpoint remembers that it is due.
            while not (self.state.phase_is_over or self._is_to_stop):
                self._evaluate_when_due()
                self._save_when_due()
                if not self.state.phase_is_over:  # which an evaluation may decide
                    self._go_on(steps)
            self._read_all()
            if self.state.phase_is_over:
                self._evaluate_when_due()
            self.state.save()
            self._report_saves(wait=True)
        finally:
            self.state.close()
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
        every, elapsed = (
            self.settings.checkpoint_every_seconds,
            self.state.seconds_since_save(),
        )
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
                f"the task has no more steps after {self.progress.tokens} tokens, but the run "
                f"needs {self.state.phases.total_tokens}"
            )
        return step

    def _take(self, step: Step, data_wait_seconds: float) -> None:
        """One step: gradients of all micro-batches, and one update unless it is bad."""
        started = time.perf_counter() - data_wait_seconds
        rate = learning_rate(
            self.settings.schedule,
            self.state.phases.tokens_in(step.progress),
            self.settings.total_tokens,
        )
        loss, told_to_stop, gradient_norm = self._gradients(step)
        limit = self.state.health.limit(step.progress.step, self.settings)
        taken = loss.isfinite() & gradient_norm.isfinite() & (loss <= limit)
        if (largest := self.settings.largest_norm) is not None:
            clip_gradients(self.module, gradient_norm, largest)
        self._update(rate, taken)
        figures = torch.stack([loss, told_to_stop, gradient_norm, taken.to(loss)])
        self._launched.append(
            LaunchedStep(
                step=step,
                rate=rate,
                figures=underway(to_host(figures), self.device),
                started=started,
                data_wait_seconds=data_wait_seconds,
            )
        )
        self.state.progress = step.progress  # the data of a skipped step has been seen all the same
        self._read_all(but=self._steps_in_flight)

    def _read_all(self, but: int = 0) -> None:
        """Read what became of the steps but the last ones; go back when too many were skipped."""
        reason = ""
        while len(self._launched) > (0 if self._skips_too_many else but):
            reason = self._read(self._launched.popleft())
        if self._skips_too_many:
            self._go_back(reason)

    @property
    def _skips_too_many(self) -> bool:
        return self.state.health.skipped_in_a_row > self.settings.max_skipped_steps

    def _read(self, launched: LaunchedStep) -> str:
        """Wait for a step and make a record of it; why it was skipped, if it was."""
        loss, told_to_stop, gradient_norm, taken = launched.figures.wait().tolist()
        self._stop_is_agreed = self.group.size > 1 and told_to_stop > 0
        number = launched.step.progress.step
        verdict = self.state.health.judge(
            number, loss, gradient_norm, self.settings, taken=bool(taken)
        )
        record = step_record(launched, loss, gradient_norm, verdict, self._watch)
        if verdict.spike is not None:
            place = {"step": number, "tokens": record["tokens"]}
            self.observe("spike", **place, loss=loss, median=verdict.spike)
        kind = "step" if verdict.reason is None else "skipped"
        self.observe(kind, **record, memory_bytes=peak_memory_bytes(self.device))
        return verdict.reason or ""

    def _update(self, rate: float, taken: torch.Tensor) -> None:
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * group.get("rate_factor", 1.0)
        self.state.optimizer.step(taken=taken)
        self.state.optimizer.zero_grad()

    def _gradients(self, step: Step) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Accumulate the gradients of the step's mean loss.

        Returns the loss, how many processes were told to stop, and the gradients' norm.
        """
        seed_step(self.settings.seed, step.progress.step, self.group.rank)
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
        value, told_to_stop = figures.unbind()
        return value, told_to_stop, norm

    def _loss(self, micro_batch: Any, step: int) -> torch.Tensor:
        with autocast(self.device, self.settings.precision):
            return self.phase.task.loss(self.module, micro_batch, step=step).float()

    def _go_back(self, reason: str) -> None:
        """Go back to an earlier checkpoint's weights, and keep that the run did."""
        skipped = self.state.health.skipped_in_a_row
        step = self.state.go_back(reason)
        self.observe("went_back", tokens=self.progress.tokens, to_step=step, skipped_steps=skipped)
        self.state.save()

    def _evaluate_when_due(self) -> None:
        """Evaluate at a phase's beginning, its end and every so many steps, each once."""
        state, step = self.state, self.progress.step
        every = self.settings.evaluate_every_steps
        begins = state.evaluated_step < 0 and self.phase.evaluates_first
        again = every is not None and step > 0 and step % every == 0
        due = begins or again or state.phase_is_over
        if not due or state.evaluated_step == step:
            return
        self._read_all()
        started = time.perf_counter()
        with (
            undisturbed(self.module, self.device),
            autocast(self.device, self.settings.precision),
        ):
            self.evaluation = self.computation.run(lambda: self.phase.task.evaluate(self.module))
        state.evaluated_step = step
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
        if due:
            self._read_all()
        if due and not self.state.health.skipped_in_a_row:
            self.state.save()

    def _report_saves(self, *, wait: bool = False) -> None:
        """Tell of the checkpoints that have come to be since; or of one that could not."""
        for saved in self.state.finished_saves(wait=wait):
            self.observe(
                "checkpoint",
                step=saved.progress["step"],
                phase=self.state.phases[saved.progress["phase"]].name,
                tokens=saved.progress["tokens"],
                path=str(saved.folder),
                seconds=saved.seconds,
                paused_seconds=saved.paused_seconds,
            )

    def observe(self, kind: str, **values: Any) -> None:
        """Make a record, of the run's place unless `values` say where, for every observer."""
        if not self.group.is_first:
            return
        record = {
            "kind": kind,
            "step": self.progress.step,
            "phase": self.phase.name,
            **values,
        }
        for observer in self.observers:
            observer(record)

    def _result(self) -> Result:
        if self.state.finished:
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
