"""The ramp of the batch size."""

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.errors import SettingsError
from modernbert.tasks.pretraining.recipe_tables import BatchSettings, RampSettings

BIN_TOKENS = 8_192


def ramped(first: int, increment: int, last: int, tokens: int) -> BatchSettings:
    ramp = RampSettings(first_bins=first, increment_bins=increment, tokens=tokens)
    return BatchSettings(bins_per_step=last, ramp=ramp)


def sizes(settings: BatchSettings, until: int) -> list[int]:
    """Of each step, with full bins, until so many tokens were seen."""
    tokens, found = 0, []
    while tokens < until:
        found.append(settings.bins_at(tokens))
        tokens += found[-1] * BIN_TOKENS
    return found


def test_the_ramp_of_the_papers_base() -> None:
    """From 768 to 4,608 rows of 1,024 in steps of 768, over 50 billion tokens."""
    found = sizes(ramped(96, 96, 576, 50_000_000_000), 50_100_000_000)
    runs = [(size * BIN_TOKENS // 1_024, len(list(run))) for size, run in groupby(found)]
    assert [rows for rows, _ in runs] == [768, 1_536, 2_304, 3_072, 3_840, 4_608]
    lengths = [length for _, length in runs[:-1]]
    assert max(lengths) - min(lengths) <= 1 and lengths[0] == 4_239


def test_the_ramp_of_the_papers_large() -> None:
    """From 448 to 4,928 rows in steps of 448, over 10 billion tokens."""
    found = sizes(ramped(56, 56, 616, 10_000_000_000), 10_100_000_000)
    runs = [(size * BIN_TOKENS // 1_024, len(list(run))) for size, run in groupby(found)]
    assert [rows for rows, _ in runs] == [448 * n for n in range(1, 12)]
    lengths = [length for _, length in runs[:-1]]
    assert max(lengths) - min(lengths) <= 1


@given(
    first=st.integers(1, 9),
    increment=st.integers(1, 5),
    rises=st.integers(1, 6),
    tokens=st.integers(1, 3_000_000),
)
def test_sizes_never_fall_and_come_to_the_last(
    first: int, increment: int, rises: int, tokens: int
) -> None:
    last = first + rises * increment
    settings = ramped(first, increment, last, tokens)
    found = sizes(settings, tokens)
    assert found == sorted(found) and found[0] == first
    assert settings.bins_at(tokens) == last and settings.bins_at(tokens - 1) < last
    assert settings.num_steps(tokens, BIN_TOKENS) == pytest.approx(len(found), abs=rises + 1)


def test_no_ramp() -> None:
    settings = BatchSettings(bins_per_step=7)
    assert settings.bins_at(0) == settings.bins_at(10**12) == 7
    assert settings.num_steps(7 * BIN_TOKENS * 3 + 1, BIN_TOKENS) == 4


@pytest.mark.parametrize(
    ("first", "increment", "last"), [(8, 3, 16), (16, 1, 16), (17, 1, 16), (0, 1, 4), (1, 0, 4)]
)
def test_ramps_that_lead_nowhere(first: int, increment: int, last: int) -> None:
    with pytest.raises(SettingsError):
        ramped(first, increment, last, 100)
