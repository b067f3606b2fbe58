"""Prefetching ends when it should and hides no failure; held-out batches are always the same."""

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.memory_shards import FIRST_ID, memory_folder, random_folder

from modernbert.data.collate import MaskedBatch
from modernbert.data.loader import held_out_batches, prefetch
from modernbert.data.packing import PackingSettings
from modernbert.errors import InputError, SettingsError, ShardError

SIZES = PackingSettings(max_seqlen=64, bin_tokens=256)


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


class Counter:
    """Numbers without end that tell how many were asked for, and whether they were closed."""

    def __init__(self) -> None:
        self.made = 0
        self.closed = False
        self.thread: threading.Thread | None = None

    def __call__(self) -> Iterator[int]:
        try:
            while True:
                self.made += 1
                self.thread = threading.current_thread()
                yield self.made
        finally:
            self.closed = True


class TestPrefetch:
    @settings(deadline=None, max_examples=25)
    @given(items=st.lists(st.integers(), max_size=20), depth=st.integers(1, 5))
    def test_gives_the_same_items(self, items: list[int], depth: int) -> None:
        ahead = prefetch(items, depth)
        assert list(ahead) == items
        assert list(ahead) == []

    def test_stays_a_fixed_number_ahead(self) -> None:
        counter = Counter()
        with prefetch(counter(), depth=3) as ahead:
            assert wait_until(lambda: counter.made == 4)  # three in the queue, one in the hand
            time.sleep(0.15)
            assert counter.made == 4
            assert [next(ahead), next(ahead)] == [1, 2]
            assert wait_until(lambda: counter.made == 6)
            assert counter.thread is not threading.current_thread()

    def test_a_failure_comes_in_its_turn(self) -> None:
        def broken() -> Iterator[int]:
            yield 1
            yield 2
            raise ShardError("the third is damaged")

        ahead = prefetch(broken(), depth=5)
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(ShardError, match="third"):
            next(ahead)
        assert list(ahead) == []
        assert threads() == []

    def test_what_is_not_iterable_fails_at_the_first_item(self) -> None:
        with pytest.raises(TypeError, match="not iterable"):
            next(prefetch(5, depth=1))  # type: ignore[type-var, arg-type]

    def test_closing_early_ends_the_thread_and_the_items(self) -> None:
        counter = Counter()
        ahead = prefetch(counter(), depth=2)
        assert next(ahead) == 1
        ahead.close()
        ahead.close()
        assert threads() == []
        assert counter.closed
        assert list(ahead) == []

    def test_forgetting_it_ends_the_thread(self) -> None:
        counter = Counter()
        ahead = prefetch(counter(), depth=2)
        assert next(ahead) == 1
        del ahead
        gc.collect()
        assert wait_until(lambda: threads() == [] and counter.closed)

    def test_closing_wakes_a_waiting_reader(self) -> None:
        release = threading.Event()

        def slow() -> Iterator[int]:
            release.wait(10)
            yield 1

        ahead = prefetch(slow(), depth=1)
        found: list[int] = []
        reader = threading.Thread(target=lambda: found.extend(ahead))
        reader.start()
        threading.Timer(0.1, release.set).start()
        ahead.close()
        reader.join(10)
        assert not reader.is_alive()

    @pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "ahead = None"])
    def test_the_interpreter_exits_with_a_thread_running(self, end: str) -> None:
        program = (
            "import itertools; from modernbert.data.loader import prefetch\n"
            f"ahead = prefetch(itertools.count(), depth=2); next(ahead)\n{end}"
        )
        answer = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
        )
        assert (answer.returncode, answer.stderr) == (0, "")

    def test_depth(self) -> None:
        with pytest.raises(InputError, match="depth"):
            prefetch([1], depth=0)


class TestHeldOutBatches:
    def ids(self, batches: list[MaskedBatch]) -> list[int]:
        found = []
        for each in batches:
            token_ids = each.batch.token_ids.clone()
            token_ids[each.masked_indices] = each.labels
            found += token_ids.tolist()
        return found

    def test_every_token_once(self) -> None:
        folder = random_folder(20_000)
        batches = list(held_out_batches(folder, SIZES, seed=1))
        ordinary = sorted(token for token in self.ids(batches) if token >= FIRST_ID)
        assert ordinary == list(range(FIRST_ID, FIRST_ID + folder.num_tokens))
        assert all(each.batch.total_tokens <= SIZES.bin_tokens for each in batches)
        rate = sum(each.num_masked for each in batches) / folder.num_tokens
        assert rate == pytest.approx(0.15, abs=0.015)

    def test_every_evaluation_sees_the_same(self) -> None:
        folder = random_folder(20_000)
        first, second = (
            list(held_out_batches(folder, SIZES, seed=1, max_tokens=3000)) for _ in range(2)
        )
        for one, other in zip(first, second, strict=True):
            assert one.batch.token_ids.equal(other.batch.token_ids)
            assert one.masked_indices.equal(other.masked_indices)
        other_seed = list(held_out_batches(folder, SIZES, seed=2, max_tokens=3000))
        assert self.ids(other_seed) != self.ids(first)

    def test_a_part_is_drawn_from_everywhere(self) -> None:
        folder = memory_folder([[6200], [6200]])
        batches = list(held_out_batches(folder, SIZES, seed=1, max_tokens=1300))
        token_ids = np.array(self.ids(batches))
        assert 1300 - SIZES.max_seqlen < len(token_ids) <= 1300
        ordinary = token_ids[token_ids >= FIRST_ID]
        assert len(set(ordinary.tolist())) == len(ordinary)
        assert 3000 < ordinary.mean() < 9400

    def test_what_cannot_be_held_out(self) -> None:
        with pytest.raises(ShardError, match="no documents"):
            held_out_batches(memory_folder([]), SIZES, seed=1)
        with pytest.raises(InputError, match="max_tokens"):
            held_out_batches(memory_folder([[30]]), SIZES, seed=1, max_tokens=2)
        with pytest.raises(SettingsError, match="seed"):
            held_out_batches(memory_folder([[30]]), SIZES, seed=-1)
