"""Several runs at once, each in a process of its own."""

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

import torch

from modernbert.errors import ModernBertError, TrainingError
from modernbert.tasks.tuning.outcome import Interrupted, Outcome, read_outcome
from modernbert.tasks.tuning.run_settings import Run
from modernbert.training.interruption import Interruption
from modernbert.training.log import Observer, Record

_POLL_SECONDS = 0.2


def num_processes(asked: int | None, num_runs: int) -> int:
    """How many runs at once: what is asked for, one on a GPU, else as many as there are cores."""
    if asked is None:
        asked = 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))
    return min(asked, num_runs)


Place = tuple[Run[Any], Path]
"""A run, and its folder."""


class Train(Protocol):
    """Trains one run into its folder."""

    def __call__(
        self, run: Run[Any], folder: Path, observers: Sequence[Observer], /
    ) -> Outcome: ...


def run_together(
    open_train: Callable[[], Train],
    places: Sequence[Place],
    together: int,
    on_record: Callable[[str, Record], None],
) -> list[Outcome]:
    """The outcomes of all runs, in their order, trained in processes that share the cores.

    open_train: can be pickled; reads the data in each process, and gives what trains a run.
    together: how many processes; each takes every so-many-th run.

    Raises:
        Interrupted: a signal came; each process has saved its run.
        ModernBertError: what a process has met; the others have stopped and saved.
    """
    context = multiprocessing.get_context("spawn")  # a forked torch may hang
    messages: Any = context.Queue()
    workers = [
        context.Process(
            target=_work, args=(open_train, places[first::together], together, messages)
        )
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
    outcomes = [read_outcome(folder) for _, folder in places]
    assert all(outcome is not None for outcome in outcomes)
    return [outcome for outcome in outcomes if outcome is not None]


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


def _work(
    open_train: Callable[[], Train], places: Sequence[Place], together: int, messages: Any
) -> None:
    """The life of one process."""
    os.setpgrp()  # a Ctrl-C is for the parent, which passes it on once
    parent = os.getppid()
    torch.set_num_threads(max(1, torch.get_num_threads() // together))
    try:
        train = open_train()
        for run, folder in places:

            def observe(record: Record, name: str = run.name) -> None:
                messages.put((name, record))
                if os.getppid() != parent:  # it was killed: save and end
                    signal.raise_signal(signal.SIGTERM)

            train(run, folder, [observe])
    except Interrupted:
        pass
    except ModernBertError as error:
        messages.put(("", error))
