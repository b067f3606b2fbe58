"""Epochs: every row once in each, the same from any place on."""

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from modernbert.tasks.tuning.task import Epochs

LENGTHS = st.lists(st.integers(2, 50), min_size=1, max_size=30)


@given(LENGTHS, st.integers(1, 9), st.none() | st.integers(2, 99), st.integers(0, 5))
def test_every_row_is_seen_once_an_epoch(
    lengths: list[int], size: int, tokens: int | None, seed: int
) -> None:
    epochs = Epochs(lengths=lengths, batch_size=size, batch_tokens=tokens, seed=seed)
    steps = list(islice(epochs.steps(), epochs.num_steps(3)))
    assert steps[-1].position == 3 * len(lengths)
    seen = [row for step in steps for row in step.rows]
    for first in range(0, len(seen), len(lengths)):
        assert sorted(seen[first : first + len(lengths)]) == list(range(len(lengths)))
    for step in steps:
        if tokens is None:
            assert len(step.rows) <= size
        else:
            assert len(step.rows) == 1 or sum(lengths[row] for row in step.rows) <= tokens


@given(LENGTHS, st.integers(1, 9), st.none() | st.integers(2, 99), st.integers(0, 40))
def test_steps_go_on_from_any_place(
    lengths: list[int], size: int, tokens: int | None, after: int
) -> None:
    epochs = Epochs(lengths=lengths, batch_size=size, batch_tokens=tokens)
    steps = list(islice(epochs.steps(), after + 5))
    place = steps[after].position
    assert list(islice(epochs.steps(place), 4)) == steps[after + 1 :]


def test_orders_differ_by_epoch_and_by_seed() -> None:
    orders = set()
    for seed in (0, 1):
        epochs = Epochs(lengths=[1] * 20, batch_size=20, seed=seed)
        orders |= {tuple(step.rows) for step in islice(epochs.steps(), 3)}
    assert len(orders) == 6
