"""Token pooling: as SciPy joins vectors by Ward's criterion."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.inference.token_pooling import pooled


def vectors(count: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, 6), np.float32)
    scaled: np.ndarray = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return scaled


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_sizes_and_lengths(count: int, factor: int, seed: int) -> None:
    before = vectors(count, seed)
    after = pooled(before, factor)
    assert after.dtype == np.float32
    assert len(after) == 1 + -(-(count - 1) // factor)
    assert (after[0] == before[0]).all()
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 10, 41])
@pytest.mark.parametrize("factor", [2, 3, 7])
def test_clusters_are_those_of_scipy(count: int, factor: int) -> None:
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    before = 3 * vectors(count + 1)
    num = -(-count // factor)
    if count == num:
        return
    tree = hierarchy.linkage(before[1:].astype(np.float64), method="ward")
    labels = hierarchy.fcluster(tree, num, criterion="maxclust")
    expected = {tuple(np.round(before[1:][labels == each].mean(0), 4)) for each in set(labels)}
    assert {tuple(np.round(each, 4)) for each in pooled(before, factor)[1:]} == expected


def test_factor_one_and_a_single_vector_change_nothing() -> None:
    assert pooled(vectors(5), 1) is not None
    np.testing.assert_array_equal(pooled(vectors(5), 1), vectors(5))
    np.testing.assert_array_equal(pooled(vectors(1), 4), vectors(1))
