"""Windows, packs, and results in the order of the items."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.inference.batching import (
    Progress,
    WindowSettings,
    Work,
    batch_tokens_for,
    packs,
    windows,
)

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ids:
    token_ids: list[int]
    is_truncated: bool = False


def sums(batch: PackedBatch) -> list[int]:
    return [int(ids.sum()) for ids in batch.split()]


def work_on_lengths(batch_tokens: int = 16, max_items: int = 5) -> Work[int, Ids, int]:
    """An item n becomes n tokens with the id n."""
    return Work(
        encode=lambda items: [Ids([item] * item, item > 9) for item in items],
        compute=sums,
        size=lambda item: item,
        device=CPU,
        batch_tokens=batch_tokens,
        window=WindowSettings(max_items=max_items),
    )


@given(lengths=st.lists(st.integers(1, 12)), batch_tokens=st.integers(1, 40))
def test_results_come_in_the_order_of_the_items(lengths: list[int], batch_tokens: int) -> None:
    work = work_on_lengths(batch_tokens)
    found = [pair for window in work.run(lengths) for pair in window]
    assert [len(encoded.token_ids) for encoded, _ in found] == lengths
    assert [result for _, result in found] == [n * n for n in lengths]


@given(lengths=st.lists(st.integers(1, 50)), batch_tokens=st.integers(1, 100))
def test_packs_hold_each_place_once_within_the_budget(
    lengths: list[int], batch_tokens: int
) -> None:
    found = list(packs(lengths, batch_tokens))
    assert sorted(place for pack in found for place in pack) == list(range(len(lengths)))
    for pack in found:
        assert len(pack) == 1 or sum(lengths[place] for place in pack) <= batch_tokens
    in_order = [lengths[place] for pack in found for place in pack]
    assert in_order == sorted(lengths, reverse=True)
    for one, next_one in pairwise(found):
        assert sum(lengths[i] for i in one) + lengths[next_one[0]] > batch_tokens


def test_windows_are_bounded_by_items_and_by_size() -> None:
    settings = WindowSettings(max_items=3, max_size=10)
    found = windows([1, 1, 1, 1, 9, 20, 2, 3], lambda item: item, settings)
    assert list(found) == [[1, 1, 1], [1, 9], [20], [2, 3]]


def test_a_generator_is_not_read_ahead_of_its_window() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for _ in range(1_000_000):
            taken += 1
            yield 1

    results = work_on_lengths(max_items=100).run(items())
    assert taken == 0
    for number in range(1, 4):
        assert len(next(results)) == 100
        assert taken == 100 * number
    assert sum(map(len, islice(results, 50))) == 5000
    assert taken == 5300


@given(
    lengths=st.lists(st.integers(1, 12)), batch_tokens=st.integers(1, 40), number=st.integers(0, 4)
)
def test_batches_in_flight_change_no_result(
    lengths: list[int], batch_tokens: int, number: int
) -> None:
    plain = work_on_lengths(batch_tokens)
    assert list(replace(plain, in_flight=number).run(lengths)) == list(plain.run(lengths))


def test_results_are_read_when_the_next_batch_is_launched() -> None:
    happened: list[str] = []

    class Read(list[int]):
        def __iter__(self) -> Iterator[int]:
            happened.append(f"read {self[0]}")
            return super().__iter__()

    def compute(batch: PackedBatch) -> Read:
        happened.append(f"launch {int(batch.token_ids[0])}")
        return Read(batch.token_ids[:1].tolist())

    work = replace(work_on_lengths(1, max_items=2), compute=compute, in_flight=1)
    blocks = work.run([5, 4, 3])
    assert [result for _, result in next(blocks)] == [5, 4]
    assert happened == ["launch 5", "launch 4", "read 5", "launch 3", "read 4"]
    assert [result for _, result in next(blocks)] == [3]
    assert happened[-1] == "read 3"


def test_progress_is_told_after_every_batch() -> None:
    told: list[Progress] = []
    list(work_on_lengths(max_items=3).run([3, 10, 4, 12], told.append))
    assert told == [
        Progress(texts=2, tokens=14, truncated=1),
        Progress(texts=3, tokens=17, truncated=1),
        Progress(texts=4, tokens=29, truncated=2),
    ]


def test_a_budget_that_cannot_be() -> None:
    with pytest.raises(InputError, match=r"^batch_tokens: got 0, expected 1 or more"):
        work_on_lengths(0)


def test_a_budget_for_each_kind_of_device() -> None:
    assert batch_tokens_for(CPU, 7) == 7
    assert batch_tokens_for(CPU) < batch_tokens_for(torch.device("cuda"))
