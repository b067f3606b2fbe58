"""Masking: the right shares, never a special token, and nothing but the key decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.memory_shards import FIRST_ID, SPECIAL

from modernbert.data.masking import MaskedTokens, MaskingSettings, mask_tokens
from modernbert.data.shards import SpecialTokens
from modernbert.errors import InputError, SettingsError
from modernbert.settings import to_mapping

SPECIAL_IDS = sorted(to_mapping(SPECIAL).values())
SCATTERED = SpecialTokens(cls=90, sep=3, pad=50, mask=51, unk=99)


def mask(
    token_ids: np.ndarray,
    *,
    special: SpecialTokens = SPECIAL,
    vocab_size: int = 1000,
    rate: float = 0.3,
    key: tuple[int, int] = (0, 0),
) -> MaskedTokens:
    return mask_tokens(
        token_ids, special_token_ids=special, vocab_size=vocab_size, rate=rate, key=key
    )


def ordinary(size: int, vocab_size: int = 1000) -> np.ndarray:
    return np.random.default_rng(7).integers(FIRST_ID, vocab_size, size=size)


def five_sigma(probability: float, size: int) -> float:
    return 5 * (probability * (1 - probability) / size) ** 0.5


@settings(deadline=None)
@given(
    token_ids=st.lists(st.integers(0, 99), max_size=60),
    rate=st.floats(0, 1),
    key=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
)
def test_what_was_masked_can_be_put_back(
    token_ids: list[int], rate: float, key: tuple[int, int]
) -> None:
    before = np.array(token_ids, dtype=np.int64)
    kept = before.copy()
    seen, indices, labels = mask(before, special=SCATTERED, vocab_size=100, rate=rate, key=key)
    assert (before == kept).all()
    assert (np.diff(indices) > 0).all()
    assert not np.isin(labels, list(to_mapping(SCATTERED).values())).any()
    seen[indices] = labels
    assert seen.tolist() == token_ids
    assert {array.dtype for array in (seen, indices, labels)} == {np.dtype(np.int64)}


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.3, 1.0])
def test_shares(rate: float) -> None:
    token_ids = ordinary(200_000)
    seen, indices, labels = mask(token_ids, rate=rate)
    count = len(indices)
    assert count / 200_000 == pytest.approx(rate, abs=five_sigma(rate, 200_000) + 1e-12)
    hidden = seen[indices] == SPECIAL.mask
    unchanged = seen[indices] == labels
    for share, wanted in ((hidden, 0.8), (unchanged, 0.1), (~hidden & ~unchanged, 0.1)):
        # A random id is the original once in a thousand.
        assert share.mean() == pytest.approx(wanted, abs=five_sigma(wanted, count) + 1e-3)


def test_rates_of_nothing_and_everything() -> None:
    assert len(mask(ordinary(500), rate=0).masked_indices) == 0
    assert len(mask(ordinary(500), rate=1).masked_indices) == 500
    assert len(mask(np.array(SPECIAL_IDS * 20), rate=1).masked_indices) == 0


def test_places_are_masked_alike() -> None:
    """Over many bins, each place is masked as often as any other, whatever its neighbours are."""
    token_ids = ordinary(64)
    counts = np.zeros(64)
    pairs = 0
    for bin_id in range(4000):
        masked = np.zeros(64, dtype=bool)
        masked[mask(token_ids, key=(1, bin_id)).masked_indices] = True
        counts += masked
        pairs += int((masked[1:] & masked[:-1]).sum())
    chi_square = ((counts - 1200) ** 2 / (4000 * 0.3 * 0.7)).sum()
    assert chi_square < 104.7  # 64 degrees of freedom: exceeded once in a thousand
    assert pairs / (4000 * 63) == pytest.approx(0.09, abs=five_sigma(0.09, 4000 * 63))


def test_replacements_are_uniform_over_all_ids_that_are_not_special() -> None:
    specials = set(to_mapping(SCATTERED).values())
    token_ids = np.full(400_000, 10)
    seen, indices, _ = mask(token_ids, special=SCATTERED, vocab_size=100, rate=1.0)
    drawn = seen[indices]
    counts = np.bincount(drawn[(drawn != SCATTERED.mask) & (drawn != 10)], minlength=100)
    assert set(np.flatnonzero(counts == 0).tolist()) == specials | {10}
    expected = counts.sum() / 94
    chi_square = ((counts[counts > 0] - expected) ** 2 / expected).sum()
    assert chi_square < 140.9  # 93 degrees of freedom: exceeded once in a thousand


def test_seed_and_bin_both_decide() -> None:
    token_ids = ordinary(2000)
    masks = [
        set(mask(token_ids, key=key).masked_indices.tolist())
        for key in ((0, 0), (0, 1), (1, 0), (1, 1), (2**63, 0), (0, 2**40))
    ]
    for index, one in enumerate(masks):
        for other in masks[:index]:
            assert 120 < len(one & other) < 240  # by chance 180 of about 600
    again = mask(token_ids, key=(1, 1))
    assert set(again.masked_indices.tolist()) == masks[3]


def test_a_lower_rate_masks_a_subset() -> None:
    token_ids = ordinary(2000)
    low, high = (set(mask(token_ids, rate=rate).masked_indices.tolist()) for rate in (0.15, 0.3))
    assert low < high


def test_the_stream_of_the_generator_is_pinned() -> None:
    """A run must resume under a later NumPy: its raw words may never change."""
    seen, indices, _ = mask(np.arange(100, 130), key=(17, 5))
    assert indices.tolist() == [1, 4, 8, 11, 14, 17, 26]
    assert seen[indices].tolist() == [345, 4, 4, 4, 4, 4, 4]


def test_what_cannot_be_masked() -> None:
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="rate"):
            mask(ordinary(5), rate=rate)
    for key in ((-1, 0), (0, 2**64)):
        with pytest.raises(InputError, match="key"):
            mask(ordinary(5), key=key)


@pytest.mark.parametrize("rate", [0.0, -0.3, 1.5, float("nan")])
def test_settings_that_cannot_be(rate: float) -> None:
    with pytest.raises(SettingsError, match="rate"):
        MaskingSettings(rate=rate)
    assert MaskingSettings().rate == 0.3
