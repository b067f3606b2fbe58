"""The lengths are those that the results claim."""

import numpy as np
import pytest

from benchmarks.workloads import WORKLOADS, token_ids


@pytest.mark.parametrize("name", WORKLOADS)
def test_lengths_are_sane_and_always_the_same(name: str) -> None:
    workload = WORKLOADS[name]
    assert workload.name == name
    assert all(1 <= length <= 8_192 for length in workload.lengths)
    assert workload.total_tokens == sum(workload.lengths)
    assert workload.is_long == ("8192" in name)


def test_fixed_lengths() -> None:
    assert WORKLOADS["512-fixed"].lengths == (512,) * 8
    assert WORKLOADS["8192-fixed"].lengths == (8_192,)
    assert WORKLOADS["8192-padded"].lengths == (8_192, 3_000, 1_200, 500)
    assert [WORKLOADS[f"request-{n}"].lengths for n in (8, 32)] == [(8,), (32,)]


def test_drawn_lengths_follow_their_distributions() -> None:
    ragged = np.array(WORKLOADS["512-ragged"].lengths)
    assert abs(ragged.mean() - 256) < 64
    assert 20 < ragged.std() < 130
    assert ragged.min() >= 16
    assert ragged.max() <= 512
    uniform = np.array(WORKLOADS["uniform-padded"].lengths)
    assert uniform.min() >= 16
    assert uniform.max() <= 512
    assert uniform.std() > 90
    web = np.array(WORKLOADS["web"].lengths)
    assert 60 < np.median(web) < 240
    assert web.mean() > np.median(web)


def test_what_peers_may_choose_from() -> None:
    assert WORKLOADS["512-fixed"].batch_sizes() == (1, 4)
    assert WORKLOADS["512-ragged"].batch_sizes() == (1, 4, 16)
    assert WORKLOADS["8192-ragged"].batch_sizes() == (1,)
    for name in ("uniform-padded", "8192-padded", "8192-fixed", "request-8"):
        assert WORKLOADS[name].batch_sizes() == (None,)


def test_token_ids_have_the_lengths_and_known_ids() -> None:
    sequences = token_ids((5, 1, 300))
    assert [len(sequence) for sequence in sequences] == [5, 1, 300]
    assert all(1_000 <= token < 30_000 for sequence in sequences for token in sequence)
    assert token_ids((5, 1, 300)) == sequences
    assert token_ids((5, 1, 300), seed=1) != sequences


def test_a_quick_look_takes_the_first_sequences() -> None:
    workload = WORKLOADS["512-ragged"]
    few = workload.first(3)
    assert few.lengths == workload.lengths[:3] and "the first 3" in few.description
    assert workload.first(None) == workload.first(99) == workload
