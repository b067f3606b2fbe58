"""`JobQueue`: sequences that wait to be computed, and which of them share a batch.

A job is one sequence. It belongs to a lane: what a model computes from it. Jobs of one lane share
batches. The jobs of a request that fills more than an eighth of a batch are long; long and short
jobs never share a batch, so that a short one need not wait for the end of a long one.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from ctypes import c_int
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import count
from threading import Condition
from time import monotonic
from typing import Any, NamedTuple

from modernbert.batch import PackedBatch
from modernbert.model.config import flops_per_token
from modernbert.model.encoder import Encoder

_LONG_SHARE = 8
_PAUSE_SHARE = 4


class Computed(NamedTuple):
    """The result of a job, and how long it waited and was computed."""

    value: Any
    queue_seconds: float
    inference_seconds: float


@dataclass(frozen=True, eq=False)
class Lane:
    """One computation of a model, whose jobs share batches.

    Attributes:
        encoder: The encoder that `compute` uses.
        compute: Turns a batch into one result per sequence, in their order.
    """

    encoder: Encoder
    compute: Callable[[PackedBatch], Sequence[Any]]


@dataclass(eq=False)
class QueuedJob:
    """One sequence on its way through a lane.

    Attributes:
        request_tokens: The tokens of the whole request that it belongs to.
        future: The future of its result; cancelling it removes the job from the queue.
        is_abandoned: Whether nobody waits for the result any longer.
    """

    lane: Lane
    token_ids: Sequence[int]
    request_tokens: int = 0
    future: "Future[Computed]" = field(default_factory=Future)
    arrived: float = field(default_factory=monotonic)
    is_abandoned: bool = False

    @property
    def num_tokens(self) -> int:
        """The length of the sequence."""
        return len(self.token_ids)

    @cached_property
    def cost(self) -> float:
        """Floating-point operations, from which the time is estimated."""
        return self.num_tokens * flops_per_token(self.lane.encoder.config, self.num_tokens)

    def abandon(self) -> None:
        """Give the job up: remove it from the queue, or mark it so that it is not computed."""
        self.is_abandoned = True
        self.future.cancel()


class JobQueue:
    """Waiting jobs in their order of arrival, safe to use from any thread.

    Args:
        batch_tokens: The most tokens to compute at once; a batch has at least one sequence.

    Attributes:
        pause_wanted: Not 0 if a long batch should pause soon: a short job may be waiting, or
            nobody may be waiting for the long one any longer.
    """

    def __init__(self, *, batch_tokens: int) -> None:
        self.batch_tokens = batch_tokens
        self.num_tokens = 0
        self.cost = 0.0
        self._waiting: dict[QueuedJob, float] = {}
        self._changed = Condition()
        self._is_closed = False
        self.pause_wanted = c_int(0)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, jobs: Sequence[QueuedJob]) -> None:
        """Add jobs; they are removed when their futures are done."""
        with self._changed:
            for job in jobs:
                self._waiting[job] = job.cost
                self.cost += self._waiting[job]
            self.num_tokens += sum(job.num_tokens for job in jobs)
            if not all(map(self.is_long, jobs)):
                self.pause_wanted.value = 1
            self._changed.notify()
        for job in jobs:
            job.future.add_done_callback(partial(self._leave, job))

    def take(self) -> list[QueuedJob] | None:
        """Wait for the next batch: the oldest job and others of its kind; None once closed."""
        with self._changed:
            while not self._waiting:
                if self._is_closed:
                    return None
                self._changed.wait()
            oldest = next(iter(self._waiting))
            return self._take(oldest, self.batch_tokens)

    def take_short(self) -> list[QueuedJob]:
        """Take a small batch of short jobs, to compute in a pause of a long one; or None."""
        with self._changed:
            short = (job for job in self._waiting if not self.is_long(job))
            oldest, another = next(short, None), next(short, None)
            self.pause_wanted.value = int(another is not None)
            return [] if oldest is None else self._take(oldest, self.batch_tokens // _PAUSE_SHARE)

    def is_long(self, job: QueuedJob) -> bool:
        """Return whether short jobs should not have to wait for it."""
        return max(job.num_tokens, job.request_tokens) > self.batch_tokens // _LONG_SHARE

    def close(self) -> None:
        """Let whoever takes know that nothing more will come."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _take(self, oldest: QueuedJob, budget: int) -> list[QueuedJob]:
        """The oldest of some kind and, in their order, those of its kind that fit beside it."""
        is_long, batch, room = self.is_long(oldest), [oldest], budget - oldest.num_tokens
        for job in self._waiting:
            if room <= 0:
                break
            is_alike = job.lane is oldest.lane and self.is_long(job) == is_long
            if is_alike and job is not oldest and job.num_tokens <= room:
                batch.append(job)
                room -= job.num_tokens
        for job in batch:
            self._remove(job)
        return batch

    def _leave(self, job: QueuedJob, _: "Future[Computed]") -> None:
        with self._changed:
            self._remove(job)

    def _remove(self, job: QueuedJob) -> None:
        cost = self._waiting.pop(job, None)
        if cost is not None:
            self.num_tokens -= job.num_tokens
            self.cost = self.cost - cost if self._waiting else 0.0


def parts_of(jobs: Sequence[QueuedJob], num_tokens: int) -> Iterator[Sequence[QueuedJob]]:
    """Divide jobs, in their order, into parts of about this many tokens."""
    part: list[QueuedJob] = []
    room = num_tokens
    for job in jobs:
        if part and job.num_tokens > room:
            yield part
            part, room = [], num_tokens
        part.append(job)
        room -= job.num_tokens
    if part:
        yield part


async def all_done(futures: Sequence["Future[Any]"]) -> None:
    """Wait until all futures have results, or one has failed."""
    loop = asyncio.get_running_loop()
    done, numbers = loop.create_future(), count(1)

    def note(future: "Future[Any]") -> None:
        is_last = next(numbers) == len(futures)
        if is_last or future.cancelled() or future.exception() is not None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(_set_done, done)

    for future in futures:
        future.add_done_callback(note)
    await done


def _set_done(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
