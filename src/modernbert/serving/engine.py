"""`BatchEngine`: one thread that computes all waiting jobs, batch after batch.

A batch is packed as soon as the previous one is done: a lone request does not wait, and under load
batches grow by themselves. In the pauses of a long batch, waiting short jobs are computed: see
docs/decisions/batching-and-yielding.md.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from time import monotonic
from typing import Any, Protocol

import torch

from modernbert.inference.batching import launch
from modernbert.inference.loading import device_of
from modernbert.model.encoder import Encoder
from modernbert.serving.answers import Refusal, overloaded, unavailable
from modernbert.serving.queue import Computed, JobQueue, QueuedJob

_log = logging.getLogger(__name__)

# While a long batch is under way, short ones get at most twice the time that it has had.
_SHORT_SHARE = 2.0
_SPEED_HALF_LIFE_SECONDS = 5.0


class BatchObserver(Protocol):
    """Is called after each batch."""

    def batch(self, num_sequences: int, num_tokens: int, still_waiting: int) -> None: ...


class Speed:
    """How fast the last batches were computed; later batches count more."""

    def __init__(self) -> None:
        self._cost_and_seconds = 0.0, 0.0

    def add(self, cost: float, seconds: float) -> None:
        """Take one batch into account."""
        kept = 0.5 ** (seconds / _SPEED_HALF_LIFE_SECONDS)
        old_cost, old_seconds = self._cost_and_seconds
        self._cost_and_seconds = old_cost * kept + cost, old_seconds * kept + seconds

    def seconds(self, cost: float) -> float:
        """Return how many seconds this much work takes; 0 before the first batch."""
        known_cost, known_seconds = self._cost_and_seconds
        return cost * known_seconds / known_cost if known_cost else 0.0


class BatchEngine:
    """Computes jobs in its own thread, from `start` to `close`.

    Args:
        max_tokens: The most tokens that may wait; further requests are refused.
        max_wait_seconds: Requests are refused when the work ahead of them would take longer.
    """

    def __init__(
        self,
        queue: JobQueue,
        observer: BatchObserver,
        *,
        max_tokens: int,
        max_wait_seconds: float,
    ) -> None:
        self.queue, self.max_tokens, self.max_wait_seconds = queue, max_tokens, max_wait_seconds
        self.speed = Speed()
        self._observer = observer
        self._running_cost = 0.0
        self._admissions: set[Admission] = set()
        self._thread = Thread(target=self._run, name="batch engine", daemon=True)

    def start(self) -> None:
        """Begin to compute."""
        self._thread.start()

    def close(self) -> None:
        """Compute all waiting jobs, then stop."""
        self.queue.close()
        if self._thread.is_alive():
            self._thread.join()

    def seconds_of_work(self) -> float:
        """Return how long everything that has been admitted will take."""
        cost = sum(admission.cost for admission in self._admissions)
        return self.speed.seconds(cost + self.queue.cost + self._running_cost)

    def admit(self, jobs: Sequence[QueuedJob]) -> "Admission":
        """Accept all jobs of one request, or none.

        Raises:
            Refusal: Too much work is waiting already.
        """
        wait = self.seconds_of_work()
        if wait > self.max_wait_seconds:
            raise overloaded(
                f"about {wait:.0f} seconds of work are waiting; the limit is "
                f"{self.max_wait_seconds:g}",
                retry_after=wait - self.max_wait_seconds,
            )
        waiting = self.queue.num_tokens + sum(each.num_tokens for each in self._admissions)
        admission = Admission(self, jobs)
        if waiting and waiting + admission.num_tokens > self.max_tokens:
            raise overloaded(
                f"{waiting:,} tokens wait already and {admission.num_tokens:,} more are too "
                f"many; the queue holds {self.max_tokens:,}",
                retry_after=1,
            )
        self._admissions.add(admission)
        return admission

    def give_up(self, jobs: Sequence[QueuedJob]) -> None:
        """Compute no more of jobs that nobody waits for; a batch under way stops at its next pause.

        Args:
            jobs: All jobs of one request.
        """
        for job in jobs:
            job.abandon()
        self.queue.pause_wanted.value = 1

    def _run(self) -> None:
        while (jobs := self.queue.take()) is not None:
            pauses = _Pauses(self, jobs) if self.queue.is_long(jobs[0]) else None
            self._compute(jobs, pauses)
            del jobs, pauses  # not kept alive while waiting

    def _compute(self, jobs: Sequence[QueuedJob], pauses: "_Pauses | None" = None) -> None:
        """Give each job its result, or tell it why there is none."""
        began = monotonic()
        wanted = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        if not wanted:
            return
        num_tokens = sum(job.num_tokens for job in wanted)
        cost = sum(job.cost for job in wanted)
        self._observer.batch(len(wanted), num_tokens, len(self.queue))
        self._running_cost += cost
        try:
            self._finish(wanted, began, pauses)
        finally:
            self._running_cost -= cost
        self.speed.add(cost, monotonic() - began - (pauses.seconds if pauses else 0.0))

    def _finish(self, jobs: Sequence[QueuedJob], began: float, pauses: "_Pauses | None") -> None:
        outcome = _outcome(jobs, pauses)
        if isinstance(outcome, MemoryError) and len(jobs) > 1:
            _log.warning("out of memory with %d sequences: trying the halves", len(jobs))
            middle = len(jobs) // 2
            self._finish(jobs[:middle], began, pauses)
            self._finish(jobs[middle:], began, pauses)
            return
        seconds = monotonic() - began - (pauses.seconds if pauses else 0.0)
        for place, job in enumerate(jobs):
            if isinstance(outcome, Exception):
                job.future.set_exception(_refusal(outcome))
            else:
                job.future.set_result(Computed(outcome[place], began - job.arrived, seconds))

    def _compute_short(self) -> bool:
        """Compute a small batch of short jobs, if any wait; return whether any did."""
        if short := self.queue.take_short():
            self._compute(short)
        return bool(short)


class Admission:
    """The jobs of one request, queued part by part, so that other requests are served in between.

    Attributes:
        cost: The cost of the jobs that are not queued yet.
        num_tokens: The tokens of these jobs.
    """

    def __init__(self, engine: BatchEngine, jobs: Sequence[QueuedJob]) -> None:
        self._engine = engine
        self.cost = sum(job.cost for job in jobs)
        self.num_tokens = sum(job.num_tokens for job in jobs)

    def queue(self, jobs: Sequence[QueuedJob]) -> None:
        self.cost -= sum(job.cost for job in jobs)
        self.num_tokens -= sum(job.num_tokens for job in jobs)
        self._engine.queue.put(jobs)

    def close(self) -> None:
        """Stop queueing."""
        self._engine._admissions.discard(self)


class _Pauses:
    """Called in the pauses of a long batch: lets short jobs go first, within their share."""

    def __init__(self, engine: BatchEngine, jobs: Sequence[QueuedJob]) -> None:
        self.seconds = 0.0
        self._engine, self._jobs = engine, jobs
        self._began = monotonic()

    def __call__(self) -> None:
        if all(job.is_abandoned for job in self._jobs):
            raise _AbandonedError
        own_seconds = monotonic() - self._began - self.seconds
        while self.seconds <= _SHORT_SHARE * own_seconds:
            paused = monotonic()
            if not self._engine._compute_short():
                break
            self.seconds += monotonic() - paused


class _AbandonedError(Exception):
    """Nobody waits for the batch any more."""


def _outcome(jobs: Sequence[QueuedJob], pauses: "_Pauses | None") -> Sequence[Any] | Exception:
    """The results of a batch, or its error, without the references that would hold memory."""
    lane = jobs[0].lane
    try:
        with _hooked(lane.encoder, pauses):
            sequences = (job.token_ids for job in jobs)
            return launch(lane.compute, sequences, device_of(lane.encoder)).wait()
    except _AbandonedError:
        return Refusal(503, "Unhealthy", "given up")
    except Exception as error:
        if _is_out_of_memory(error):
            return MemoryError()
        _log.exception("a batch failed")
        return RuntimeError()


@contextmanager
def _hooked(encoder: Encoder, hook: Callable[[], None] | None) -> Iterator[None]:
    """Have a function called in the pauses of a forward pass; restore the previous one then."""
    previous, encoder.pause = encoder.pause, hook
    try:
        yield
    finally:
        encoder.pause = previous


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "allocate memory" in said or "not enough memory" in said or "out of memory" in said
    )


def _refusal(outcome: Exception) -> Refusal:
    if isinstance(outcome, Refusal):
        return outcome
    if isinstance(outcome, MemoryError):
        return unavailable("not enough memory for this text now", retry_after=5)
    return Refusal(424, "Backend", "the model failed on this batch; the server's log says why")
