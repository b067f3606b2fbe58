"""Several runs at once, each in a process of its own."""

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from modernbert.errors import ModernBertError, TrainingError
from modernbert.tasks.fine_tuning_recipe import FineTuningRecipe, Run
from modernbert.tasks.fine_tuning_run import Interrupted, Outcome, fine_tune, read_outcome
from modernbert.tasks.job import Verb
from modernbert.tasks.jobs import open_job
from modernbert.training.interruption import Interruption
from modernbert.training.log import Record

_POLL_SECONDS = 0.2


def num_processes(asked: int | None, num_runs: int) -> int:
    """How many runs at once: what is asked for, one on a GPU, else as many as there are cores."""
    if asked is None:
        asked = 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))
    return min(asked, num_runs)


@dataclass(frozen=True)
class RunPool:
    """Trains runs of a recipe in processes that share the cores.

    model: the fingerprint of the first model.
    """

    verb: Verb
    recipe: FineTuningRecipe
    model: str

    def run(
        self, runs: Sequence[Run], together: int, on_record: Callable[[str, Record], None]
    ) -> list[Outcome]:
        """The outcomes of all runs, in their order.

        together: how many processes; each takes every so-many-th run.

        Raises:
            Interrupted: a signal came; each process has saved its run.
            ModernBertError: what a process has met; the others have stopped and saved.
        """
        context = multiprocessing.get_context("spawn")  # a forked torch may hang
        messages: Any = context.Queue()
        workers = [
            context.Process(target=_work, args=(self, runs[first::together], together, messages))
            for first in range(together)
        ]
        with Interruption() as interruption:
            for worker in workers:
                worker.start()
            failure = _listen(workers, messages, on_record, interruption)
        if failure is not None:
            raise failure
        if interruption.signal_number is not None:
            raise Interrupted(128 + interruption.signal_number)
        outcomes = [read_outcome(self.folder(run)) for run in runs]
        assert all(outcome is not None for outcome in outcomes)
        return [outcome for outcome in outcomes if outcome is not None]

    def folder(self, run: Run) -> Any:
        """Of a run."""
        return self.recipe.output / "runs" / run.name


def _listen(
    workers: Sequence[BaseProcess],
    messages: Any,
    on_record: Callable[[str, Record], None],
    interruption: Interruption,
) -> Exception | None:
    """Pass records on until all processes have ended; what one of them has met."""
    failure: Exception | None = None
    stopping = False
    while any(worker.is_alive() for worker in workers) or not messages.empty():
        try:
            name, message = messages.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            name = message = None
        if isinstance(message, Exception):
            failure = failure or message
        elif message is not None:
            on_record(name, message)
        if not stopping and (failure or interruption.signal_number is not None):
            stopping = True
            _stop(workers)
    killed = [worker.exitcode for worker in workers if worker.exitcode]
    if failure is None and killed and interruption.signal_number is None:
        failure = TrainingError(
            f"a process of the sweep was killed (exit code {killed[0]}), perhaps for want of "
            "memory; run the same command again, with fewer processes"
        )
    return failure


def _stop(workers: Sequence[BaseProcess]) -> None:
    """Ask every process to save and end; one that has heard of it already ignores this."""
    for worker in workers:
        if worker.is_alive() and worker.pid is not None:
            os.kill(worker.pid, signal.SIGTERM)


def _work(pool: RunPool, runs: Sequence[Run], together: int, messages: Any) -> None:
    """The life of one process."""
    os.setpgrp()  # a Ctrl-C is for the parent, which passes it on once
    parent = os.getppid()
    torch.set_num_threads(max(1, torch.get_num_threads() // together))
    try:
        job = open_job(pool.verb, pool.recipe)
        for run in runs:

            def observe(record: Record, name: str = run.name) -> None:
                messages.put((name, record))
                if os.getppid() != parent:  # it was killed: save and end
                    signal.raise_signal(signal.SIGTERM)

            fine_tune(job, run, pool.folder(run), model=pool.model, observers=[observe])
    except Interrupted:
        pass
    except ModernBertError as error:
        messages.put(("", error))
