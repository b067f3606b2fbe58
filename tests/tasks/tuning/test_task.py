"""Epochs: every row once in each, the same from any place on."""

from collections import Counter
from itertools import islice

from hypothesis import given, settings
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


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=3),
    weights=st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0]), min_size=3, max_size=3),
    batch_size=st.integers(1, 4),
    after=st.integers(0, 10),
)
def test_sources_are_seen_by_their_weights_and_never_share_a_step(
    sizes: list[int], weights: list[float], batch_size: int, after: int
) -> None:
    sources = [number for number, size in enumerate(sizes) for _ in range(size)]
    weights = weights[: len(sizes)]
    epochs = Epochs(
        lengths=[1 + number for number in range(len(sources))],
        batch_size=batch_size,
        sources=sources,
        weights=weights,
    )
    steps = list(islice(epochs.steps(), epochs.num_steps(4)))
    seen = Counter(row for step in steps for row in step.rows)
    for step in steps:
        assert len({sources[row] for row in step.rows}) == 1
        assert len(step.rows) <= batch_size
    for number, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        counts = [seen[row] for row in range(len(sources)) if sources[row] == number]
        assert sum(counts) == 4 * max(1, round(size * weight))
        assert max(counts) - min(counts) <= 1  # a row is seen again only after all others
    tokens = sum(epochs.lengths[row] for step in steps for row in step.rows)
    assert epochs.num_tokens(4) == tokens
    place = steps[min(after, len(steps) - 1)].position
    following = [step for step in steps if step.position > place]
    assert list(islice(epochs.steps(place), len(following))) == following
