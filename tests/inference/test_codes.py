"""int8 and bits, against sums written out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modernbert.inference import index_files as codes


def vectors(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dim), np.float32)


def test_int8_is_close() -> None:
    given = np.concatenate([vectors(20, 48), np.zeros((1, 48), np.float32)])
    coded, scales = codes.to_int8(given)
    assert coded.dtype == np.int8 and np.abs(coded).max() == 127
    assert (np.abs(coded * scales - given) <= scales / 2 * 1.001).all()


@given(dim=st.integers(1, 200))
def test_bits_that_differ(dim: int) -> None:
    given, queries = vectors(7, dim), vectors(3, dim, seed=1)
    bits, query_bits = codes.to_bits(given), codes.to_bits(queries)
    assert bits.shape == (7, -(-dim // 64))
    scores = codes.scores_of_bits(query_bits, bits)
    expected = -((queries[:, None] > 0) != (given[None] > 0)).sum(2)
    np.testing.assert_array_equal(scores, expected)
