"""Which sequences are computed next, and which of them together."""

from threading import Thread

from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.model.config import EncoderConfig
from modernbert.model.encoder import Encoder
from modernbert.serving.queue import JobQueue, Lane, QueuedJob

ENCODER = Encoder(EncoderConfig.preset("tiny", vocab_size=512))
LANES = [Lane(ENCODER, len), Lane(ENCODER, len)]  # type: ignore[arg-type]


def job(length: int, lane: int = 0) -> QueuedJob:
    return QueuedJob(LANES[lane], [1] * length)


def queue_of(*jobs: QueuedJob, batch_tokens: int = 80) -> JobQueue:
    queue = JobQueue(batch_tokens=batch_tokens)
    queue.put(jobs)
    return queue


def lengths(batch: list[QueuedJob] | None) -> list[int]:
    return [each.num_tokens for each in batch or []]


def test_the_oldest_come_first_up_to_the_budget() -> None:
    queue = queue_of(*map(job, [10, 9, 8, 7] * 3), batch_tokens=80)
    assert lengths(queue.take()) == [10, 9, 8, 7, 10, 9, 8, 7, 10]
    assert lengths(queue.take()) == [9, 8, 7]


def test_what_does_not_fit_lets_shorter_ones_pass_but_is_next() -> None:
    queue = queue_of(*map(job, [10, 10, 10, 10, 10, 10, 10, 6, 10, 4]))
    assert lengths(queue.take()) == [10] * 7 + [6, 4]
    assert lengths(queue.take()) == [10]


def test_one_that_is_longer_than_the_budget_is_taken_alone() -> None:
    queue = queue_of(job(200), job(200))
    assert lengths(queue.take()) == lengths(queue.take()) == [200]


def test_long_and_short_ones_and_lanes_are_apart() -> None:
    queue = queue_of(job(11), job(5), job(10, lane=1), job(12), job(6))
    assert lengths(queue.take()) == [11, 12]
    assert lengths(queue.take()) == [5, 6]
    assert lengths(queue.take()) == [10]


def test_a_pause_gets_few_short_ones() -> None:
    queue = queue_of(job(50), *map(job, [9, 9, 9, 2]))
    assert lengths(queue.take_short()) == [9, 9, 2]
    assert lengths(queue.take_short()) == [9]
    assert queue.take_short() == []
    assert lengths(queue.take()) == [50]


def test_a_pause_is_wanted_while_short_ones_may_wait() -> None:
    queue = queue_of(job(50))
    assert not queue.pause_wanted.value
    queue.put([job(11), job(9)])
    assert queue.pause_wanted.value
    queue.put([job(60)])
    while batch := queue.take_short():
        assert lengths(batch) == [9]
    assert not queue.pause_wanted.value
    assert lengths(queue.take()) == [50, 11]


def test_leaving_frees_the_place() -> None:
    jobs = [job(5), job(6), job(7)]
    queue = queue_of(*jobs)
    jobs[1].abandon()
    assert (len(queue), queue.num_tokens) == (2, 12)
    assert lengths(queue.take()) == [5, 7]
    assert (len(queue), queue.num_tokens, queue.cost) == (0, 0, 0)


def test_whoever_waits_is_woken() -> None:
    queue, taken = JobQueue(batch_tokens=100), []
    thread = Thread(target=lambda: taken.extend([queue.take(), queue.take()]))
    thread.start()
    queue.put([job(3)])
    queue.close()
    thread.join(20)
    assert lengths(taken[0]) == [3]
    assert taken[1] is None


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 1)), min_size=1, max_size=40),
    st.data(),
)
def test_every_job_is_taken_once(kinds: list[tuple[int, int]], data: st.DataObject) -> None:
    jobs = [job(*kind) for kind in kinds]
    queue, batches, first_of_batch = queue_of(*jobs), [], []
    while len(queue):
        waiting = [each for each in jobs if not any(each in batch for batch in batches)]
        batch = queue.take_short() if data.draw(st.booleans()) else []
        if not batch:
            batch = queue.take() or []
            first_of_batch.append((batch[0], waiting[0]))
        batches.append(batch)
        assert len({each.lane for each in batch}) == 1
        assert len({queue.is_long(each) for each in batch}) == 1
        assert len(batch) == 1 or sum(lengths(batch)) <= 80
    assert sorted(map(id, jobs)) == sorted(id(each) for batch in batches for each in batch)
    assert all(first is oldest for first, oldest in first_of_batch)  # nobody starves


def test_short_texts_of_a_large_request_do_not_hold_up_a_small_one() -> None:
    queue = JobQueue(batch_tokens=80)
    many = [QueuedJob(LANES[0], [1] * 5, request_tokens=40) for _ in range(8)]
    queue.put(many)
    (one,) = jobs = [QueuedJob(LANES[0], [1] * 5, request_tokens=5)]
    queue.put(jobs)
    assert queue.take() == many  # and not the small one, which is taken in a pause
    assert queue.take_short() == [one]
