"""The thread that computes: results, pauses, memory, failures."""

from collections.abc import Callable, Sequence
from concurrent.futures import wait
from threading import Event
from typing import Any

import pytest

from modernbert.batch import PackedBatch
from modernbert.model.config import EncoderConfig
from modernbert.model.encoder import Encoder
from modernbert.serving import engine as engine_module
from modernbert.serving.answers import Refusal
from modernbert.serving.engine import BatchEngine, Speed
from modernbert.serving.queue import JobQueue, Lane, QueuedJob

ENCODER = Encoder(EncoderConfig.preset("tiny", vocab_size=512))
BATCH_TOKENS = 80
SECONDS = 20


class Observed:
    """Remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def batch(self, num_sequences: int, num_tokens: int, still_waiting: int) -> None:
        assert num_tokens >= num_sequences and still_waiting >= 0
        self.batches.append(num_sequences)


class Clock:
    """Time that passes only when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def job(compute: Callable[[PackedBatch], Sequence[Any]], *lengths: int) -> list[QueuedJob]:
    lane = Lane(ENCODER, compute)
    return [QueuedJob(lane, [place + 1] * length) for place, length in enumerate(lengths)]


def sums(batch: PackedBatch) -> Sequence[int]:
    return [int(each.sum()) for each in batch.split()]


def engine_with(*jobs: Sequence[QueuedJob], observer: Observed | None = None) -> BatchEngine:
    """An engine, yet to be started, that will find these jobs waiting."""
    queue = JobQueue(batch_tokens=BATCH_TOKENS)
    engine = BatchEngine(queue, observer or Observed(), max_tokens=10_000, max_wait_seconds=10)
    for request in jobs:
        engine.queue.put(request)
    return engine


def started(*jobs: Sequence[QueuedJob], observer: Observed | None = None) -> BatchEngine:
    engine = engine_with(*jobs, observer=observer)
    engine.start()
    return engine


def values(jobs: Sequence[QueuedJob]) -> list[Any]:
    return [each.future.result(SECONDS).value for each in jobs]


def test_each_job_gets_its_own_result() -> None:
    observer, jobs = Observed(), job(sums, 3, 4, 5, 50, 2)
    engine = started(jobs, observer=observer)
    assert values(jobs) == [3, 8, 15, 200, 10]
    engine.close()
    assert observer.batches == [4, 1]
    assert engine.seconds_of_work() == 0


def test_a_long_batch_pauses_before_each_layer_for_short_ones() -> None:
    events: list[str] = []
    short = job(lambda batch: events.append("short") or sums(batch), 5)
    late = job(lambda batch: events.append("late") or sums(batch), 6)

    def long(batch: PackedBatch) -> Sequence[int]:
        for layer in range(3):
            if layer == 2:
                engine.queue.put(late)
            assert ENCODER.pause is not None
            ENCODER.pause()
            events.append(f"layer {layer}")
        return sums(batch)

    long_jobs = job(long, 70)
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "monotonic", clock)
        engine = engine_with(long_jobs, short)
        engine.start()
        assert values([*long_jobs, *short, *late]) == [70, 5, 6]
    engine.close()
    assert events == ["short", "layer 0", "layer 1", "late", "layer 2"]
    assert ENCODER.pause is None


def test_a_pause_lasts_until_no_short_ones_wait() -> None:
    events: list[str] = []
    first = job(lambda batch: events.append("first") or sums(batch), 5)
    second = job(lambda batch: events.append("second") or sums(batch), 6)

    def long(batch: PackedBatch) -> Sequence[int]:
        assert ENCODER.pause is not None
        ENCODER.pause()
        events.append("long")
        return sums(batch)

    long_jobs = job(long, 70)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "monotonic", Clock())
        engine = started(long_jobs, first, second)
        assert values([*long_jobs, *first, *second]) == [70, 5, 6]
    engine.close()
    assert events == ["first", "second", "long"]


def test_short_ones_get_no_more_than_their_share() -> None:
    """A pause of 10 seconds is paid for by 5 seconds of the long batch."""
    clock, reached, computed = Clock(), [], []

    def short(batch: PackedBatch) -> Sequence[int]:
        assert ENCODER.pause is None
        clock.now += 10
        computed.append(reached[-1])
        return sums(batch)

    def long(batch: PackedBatch) -> Sequence[int]:
        for layer in range(12):
            reached.append(layer)
            assert ENCODER.pause is not None
            ENCODER.pause()
            clock.now += 1
        return sums(batch)

    lane = Lane(ENCODER, short)
    waiting = [QueuedJob(lane, [1] * 10) for _ in range(9)]  # two fit into a pause
    long_jobs = job(long, 70)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "monotonic", clock)
        engine = started(long_jobs, waiting)
        assert wait([each.future for each in [*long_jobs, *waiting]], SECONDS).not_done == set()
    engine.close()
    assert computed[:3] == [0, 5, 10]
    assert long_jobs[0].future.result().inference_seconds == 12


def test_batches_of_short_ones_do_not_pause() -> None:
    hooks: list[Any] = []
    jobs = job(lambda batch: hooks.append(ENCODER.pause) or sums(batch), 5, 5)
    engine = started(jobs)
    assert values(jobs) == [5, 10]
    engine.close()
    assert hooks == [None]


def test_a_long_batch_that_nobody_waits_for_stops() -> None:
    began, gone, layers = Event(), Event(), []

    def long(batch: PackedBatch) -> Sequence[int]:
        for layer in range(1000):
            assert ENCODER.pause is not None
            ENCODER.pause()
            layers.append(layer)
            began.set()
            assert gone.wait(SECONDS)
        return sums(batch)

    jobs = job(long, 70)
    engine = started(jobs)
    assert began.wait(SECONDS)
    engine.queue.pause_wanted.value = 0
    engine.give_up(jobs)
    assert engine.queue.pause_wanted.value
    gone.set()
    assert isinstance(jobs[0].future.exception(SECONDS), Refusal)
    engine.close()
    assert layers == [0]


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")],
)
def test_out_of_memory_halves_the_batch(error: Exception) -> None:
    sizes: list[int] = []

    def narrow(batch: PackedBatch) -> Sequence[int]:
        sizes.append(batch.num_sequences)
        if batch.num_sequences > 2 or 9 in batch.lengths:
            raise error
        return sums(batch)

    jobs = job(narrow, 1, 2, 3, 9, 5)
    engine = started(jobs)
    refused = jobs[3].future.exception(SECONDS)
    assert isinstance(refused, Refusal) and refused.status == 503
    assert values([*jobs[:3], jobs[4]]) == [1, 4, 9, 25]
    after = job(sums, 4)
    engine.queue.put(after)
    assert values(after) == [4]
    engine.close()
    assert max(sizes[-4:]) <= 3


def test_a_failure_is_told_and_the_engine_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: PackedBatch) -> Sequence[int]:
        raise ValueError("a secret of the server")

    jobs, after = job(broken, 3, 4), job(sums, 5)
    engine = started(jobs, after)
    for each in jobs:
        refused = each.future.exception(SECONDS)
        assert isinstance(refused, Refusal) and refused.status == 424
        assert "secret" not in refused.message
    assert values(after) == [5]
    engine.close()
    assert "a secret of the server" in caplog.text  # in the log it is


def test_work_that_would_wait_too_long_is_refused() -> None:
    engine = engine_with()
    first, second, third = job(sums, 60), job(sums, 60), job(sums, 60)
    engine.admit(first).queue(first)  # nothing is known of the speed yet
    engine.speed.add(first[0].cost, 4)
    admitted = engine.admit(second)
    engine.admit(third).queue(third)  # 8 seconds wait
    with pytest.raises(Refusal) as refused:
        engine.admit(job(sums, 1))
    assert refused.value.status == 429
    assert refused.value.retry_after == 2
    admitted.close()
    engine.admit(job(sums, 1))


def test_a_full_queue_takes_all_of_a_request_or_nothing() -> None:
    engine = BatchEngine(JobQueue(batch_tokens=80), Observed(), max_tokens=10, max_wait_seconds=10)
    first = job(sums, 2, 4)
    admitted = engine.admit(first)  # counts, though half of it is not queued
    admitted.queue(first[:1])
    with pytest.raises(Refusal) as refused:
        engine.admit(job(sums, 2, 3))
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    engine.admit(job(sums, 2, 2))
    with pytest.raises(Refusal):
        engine.admit(job(sums, 1))
    admitted.close()
    engine.admit(job(sums, 1))


def test_the_latest_speed_counts_most() -> None:
    speed = Speed()
    assert speed.seconds(100) == 0
    speed.add(cost=10, seconds=1)
    assert speed.seconds(100) == pytest.approx(10)
    for _ in range(20):
        speed.add(cost=20, seconds=1)
    assert speed.seconds(100) == pytest.approx(5, rel=0.1)
