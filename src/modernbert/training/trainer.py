"""The training loop, for any module and any task.

A run is a pure function of its module's first weights, its task and its settings: the rate
depends on tokens alone, the random numbers of a step on the seed and the step alone. So a run
that was killed and is started again ends with the very weights of an unbroken one.
"""

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from modernbert.errors import NonFiniteLossError, TrainingError
from modernbert.files import remove_leftovers
from modernbert.training import checkpoint, run_folder
from modernbert.training.interruption import Interruption
from modernbert.training.isolation import seed_step, undisturbed
from modernbert.training.log import MetricsLog, Observer
from modernbert.training.optimizer import StableAdamW, parameter_groups
from modernbert.training.precision import autocast, compute_dtype
from modernbert.training.schedule import learning_rate
from modernbert.training.task import Progress, Result, Step, Task
from modernbert.training.training_settings import TrainingSettings

__all__ = ["Progress", "Result", "Step", "Task", "Trainer", "TrainingSettings"]

METRICS_FILE = "metrics.jsonl"
_SPEED_WINDOW_STEPS = 20


class Trainer:
    """Trains a module for a task inside a run folder; `run` is the whole of it.

    module: on `device`, float32 weights; made the same way at each start, seed included.
    task: moves its micro-batches to the device itself.
    folder: of the run; made on the first start, refused when it is another run's.
    observers: called with each record, after `metrics.jsonl` has it: `start` or `resume`,
        `warning`, `step`, `evaluation`, `checkpoint`, `end`.
    identity: what else makes the run this run (data, model), as JSON values.
    """

    def __init__(
        self,
        module: nn.Module,
        task: Task,
        settings: TrainingSettings,
        folder: Path,
        *,
        observers: Sequence[Observer] = (),
        device: torch.device | str = "cpu",
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.module, self.task, self.settings = module, task, settings
        self.folder, self.device = folder, torch.device(device)
        self.identity = run_folder.plain({**(identity or {}), "training": settings.identity})
        self.observers: tuple[Observer, ...] = (MetricsLog(folder / METRICS_FILE), *observers)
        self.optimizer = StableAdamW(
            parameter_groups(module, settings.weight_decay),
            peak_learning_rate=settings.schedule.peak_learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
        )
        self.progress = Progress()
        self.evaluation: dict[str, float] = {}
        self._evaluated_step = self._saved_step = -1
        self._saved_at = time.monotonic()
        self._speed: deque[tuple[int, float]] = deque(maxlen=_SPEED_WINDOW_STEPS)

    @property
    def finished(self) -> bool:
        """Whether all tokens of the run were seen."""
        return self.progress.tokens >= self.settings.total_tokens

    def run(self) -> Result:
        """Train from the last checkpoint, or the beginning, to the end or a signal.

        Raises:
            RunError: the folder is another run's or in use, or cannot be written.
            CheckpointError: no usable checkpoint is left, or one cannot be saved.
            NonFiniteLossError: the loss or a gradient is NaN or infinite; the state before that
                step is saved.
            SettingsError: a precision that the device lacks.
        """
        compute_dtype(self.device, self.settings.precision)
        with run_folder.locked(self.folder), Interruption() as interruption:
            run_folder.claim(self.folder, self.identity)
            remove_leftovers(self.folder)
            warnings = self._restore()
            if self.finished:
                return Result(status="already_finished", progress=self.progress, evaluation={})
            self._announce(warnings)
            self._train(interruption)
            result = self._result(interruption)
            self._observe("end", status=result.status)
            return result

    def _restore(self) -> tuple[str, ...]:
        """Load the newest checkpoint, if there is one; what was set aside is in the warnings."""
        loaded = checkpoint.load_latest(self.folder, self.module, self.optimizer, self.identity)
        if loaded is None:
            return ()
        place = dict(loaded.progress)
        self._evaluated_step = place.pop("evaluated_step")
        self.progress = Progress(**place)
        self._saved_step = self.progress.step
        return loaded.warnings

    def _announce(self, warnings: Sequence[str]) -> None:
        """The first record of this start, which tells the logs where it takes up."""
        resumed = self._saved_step >= 0
        self._observe(
            "resume" if resumed else "start",
            tokens=self.progress.tokens,
            total_tokens=self.settings.total_tokens,
            evaluated_step=self._evaluated_step,
        )
        for message in warnings:
            self._observe("warning", message=message)

    def _train(self, interruption: Interruption) -> None:
        """Steps, with evaluations and checkpoints between, until the end or a signal."""
        self.module.train()
        self._evaluate_when_due()
        steps = self.task.steps(self.progress)
        try:
            while not self.finished and interruption.signal_number is None:
                started = time.perf_counter()
                self._take(self._next(steps), started)
                # After a signal there is no time to evaluate, unless this was the last step; the
                # checkpoint remembers that it is due.
                if self.finished or interruption.signal_number is None:
                    self._evaluate_when_due()
                    self._save_when_due()
        finally:
            if (close := getattr(steps, "close", None)) is not None:
                close()  # lets a task that works ahead stop its thread
        self._save()

    def _next(self, steps: Iterator[Step]) -> Step:
        step = next(steps, None)
        if step is None:
            raise TrainingError(
                f"the task has no step after {self.progress.tokens} tokens, but the run is to "
                f"see {self.settings.total_tokens}"
            )
        return step

    def _take(self, step: Step, started: float) -> None:
        """One step: gradients of all micro-batches, one update, one record."""
        data_wait_seconds = time.perf_counter() - started
        rate = learning_rate(
            self.settings.schedule, step.progress.tokens, self.settings.total_tokens
        )
        loss, gradient_norm = self._gradients(step)
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            self._stop_before(step, loss, gradient_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.progress = step.progress
        seconds = time.perf_counter() - started
        self._observe(
            "step",
            tokens=step.progress.tokens,
            loss=loss,
            learning_rate=rate,
            gradient_norm=gradient_norm,
            tokens_per_second=self._tokens_per_second(step.num_tokens, seconds),
            fill=step.fill,
            data_wait_seconds=data_wait_seconds,
            seconds=seconds,
        )

    def _gradients(self, step: Step) -> tuple[float, float]:
        """Accumulate the gradients of the step's mean loss; its value and the gradients' norm."""
        seed_step(self.settings.seed, step.progress.step)
        num_targets = max(1, step.num_targets)
        total = torch.zeros((), device=self.device)
        for micro_batch in step.micro_batches:
            with autocast(self.device, self.settings.precision):
                loss = self.task.loss(self.module, micro_batch, step=step.progress.step)
            loss = loss.float() / num_targets
            if loss.requires_grad:  # a micro-batch without a target may give a bare zero
                loss.backward()
            total += loss.detach()
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).to(total)
        value, gradient_norm = torch.stack([total, norm]).tolist()  # the step's one readback
        return value, gradient_norm

    def _stop_before(self, step: Step, loss: float, gradient_norm: float) -> NoReturn:
        """Save the state before a step that cannot be taken, and say so."""
        self.optimizer.zero_grad()
        self._save()
        folder = checkpoint.folder_of(self.folder, self.progress.step)
        raise NonFiniteLossError(
            f"step {step.progress.step}: the loss is {loss}, the gradient norm {gradient_norm}; "
            f"no weight was touched and the state before it is in {folder}; look at the data "
            f"from position {self.progress.position} or begin a run with a lower learning rate"
        )

    def _evaluate_when_due(self) -> None:
        """Evaluate at the run's beginning, its end and every so many steps, each once."""
        step, every = self.progress.step, self.settings.evaluate_every_steps
        due = step == 0 or self.finished or (every is not None and step % every == 0)
        if not due or self._evaluated_step == step:
            return
        started = time.perf_counter()
        with undisturbed(self.module, self.device), autocast(self.device, self.settings.precision):
            self.evaluation = self.task.evaluate(self.module)
        self._evaluated_step = step
        if self.evaluation:
            seconds = time.perf_counter() - started
            figures = {"tokens": self.progress.tokens, **self.evaluation, "seconds": seconds}
            self._observe("evaluation", **figures)

    def _save_when_due(self) -> None:
        """Save every so many steps or seconds."""
        steps, seconds = (
            self.settings.checkpoint_every_steps,
            self.settings.checkpoint_every_seconds,
        )
        if (steps is not None and self.progress.step % steps == 0) or (
            seconds is not None and time.monotonic() - self._saved_at >= seconds
        ):
            self._save()

    def _save(self) -> None:
        """Save the run's state unless the newest checkpoint has it already."""
        if self._saved_step == self.progress.step:
            return
        started = time.perf_counter()
        folder = checkpoint.folder_of(self.folder, self.progress.step)
        place = {**asdict(self.progress), "evaluated_step": self._evaluated_step}
        checkpoint.save(folder, self.module, self.optimizer, place, self.identity)
        checkpoint.keep_newest(self.folder, self.settings.keep_checkpoints)
        self._saved_step, self._saved_at = self.progress.step, time.monotonic()
        seconds = time.perf_counter() - started
        self._observe("checkpoint", tokens=self.progress.tokens, path=str(folder), seconds=seconds)

    def _observe(self, kind: str, **values: Any) -> None:
        for observer in self.observers:
            observer({"kind": kind, "step": self.progress.step, **values})

    def _tokens_per_second(self, num_tokens: int, seconds: float) -> float:
        """Over the last steps together, waiting for data included."""
        self._speed.append((num_tokens, seconds))
        return sum(n for n, _ in self._speed) / max(1e-9, sum(s for _, s in self._speed))

    def _result(self, interruption: Interruption) -> Result:
        if self.finished:
            return Result(status="finished", progress=self.progress, evaluation=self.evaluation)
        return Result(
            status="interrupted",
            progress=self.progress,
            evaluation=self.evaluation,
            signal_number=interruption.signal_number,
        )
