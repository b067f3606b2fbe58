"""Calibration: bins, the temperature that fits, and thresholds that no other beats."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.metrics.calibration import (
    best_temperature,
    best_thresholds,
    calibration_bins,
    calibration_error,
)


def test_bins_have_means_and_the_error_weighs_them_by_their_rows() -> None:
    bins = calibration_bins([0.95, 0.85, 0.85, 1.0, 0.0], [True, True, False, True, False])
    filled = {each.low: each for each in bins if each.count}
    assert [filled[low].count for low in (0.0, 0.8, 0.9)] == [1, 2, 2]
    assert filled[0.8].confidence == pytest.approx(0.85) and filled[0.8].accuracy == 0.5
    assert calibration_error(bins) == pytest.approx((0 + 2 * 0.35 + 2 * 0.025) / 5)
    assert calibration_error([]) == 0


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("several", [False, True])
def test_the_temperature_of_drawn_labels_is_found(temperature: float, several: bool) -> None:
    generator = np.random.default_rng(0)
    logits = 3 * generator.standard_normal((20_000, 3))
    if several:
        expected = generator.random(logits.shape) < 1 / (1 + np.exp(-logits))
    else:
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        expected = (chances.cumsum(1) < generator.random((len(logits), 1))).sum(1)
    found = best_temperature(temperature * logits, expected.astype(int))
    assert found == pytest.approx(temperature, rel=0.05)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
def test_no_threshold_has_a_better_f1(rows: list[tuple[float, bool]]) -> None:
    scores, expected = (np.array(column) for column in zip(*rows, strict=True))

    def f1(threshold: float) -> float:
        given = scores >= threshold
        return float(2 * (given & expected).sum() / max(1, given.sum() + expected.sum()))

    (found,) = best_thresholds(scores[:, None], expected[:, None])
    if not expected.any():
        assert found == 0.5
    else:
        assert f1(found) == pytest.approx(max(map(f1, np.linspace(0.0, 1.0, 41))))
