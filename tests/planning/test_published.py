"""Plans against the hours that the paper's runs took on 8 H100.

What it shows: with one share of the peak for each size, taken from any one of its phases, the
hours of the other phases come out within 10%, so operations are counted in the right proportion
between short and long sequences. What it does not show: how long the paper's documents were. That
is an assumption, and the tests below say how much hangs on it.
"""

from itertools import permutations

import pytest

from modernbert.model.config import EncoderConfig
from modernbert.planning.lengths import LONG, WEB, DocumentLengths
from modernbert.planning.phase import CHIPS, Machine
from modernbert.planning.plan import PublishedRun, nearest_run, plan_phase, published_runs

FULL = DocumentLengths.lognormal(1 << 22, 0.0, source="every sequence as long as can be")
SHORT = DocumentLengths.lognormal(700, 1.0, source="half as long as on the web")


def largest_error(lengths: DocumentLengths | None) -> float:
    """Of the hours of one phase, by the share of another of the same size, over all pairs."""
    pairs = permutations(published_runs(lengths), 2)
    return max(abs(error(known, other)) for known, other in pairs if known.size == other.size)


def error(known: PublishedRun, other: PublishedRun) -> float:
    machine = Machine(chip=CHIPS["h100"], num_gpus=8, share_of_peak=known.share_of_peak)
    return plan_phase(other.phase, machine).hours / other.hours - 1


def test_the_hours_of_other_phases_are_predicted() -> None:
    """Web-like documents first, then with more long ones (after Fu et al. 2024)."""
    assert largest_error(None) < 0.10


@pytest.mark.parametrize(
    ("lengths", "bound"), [(WEB, 0.10), (LONG, 0.10), (SHORT, 0.25), (FULL, 0.26)]
)
def test_what_hangs_on_the_lengths(lengths: DocumentLengths, bound: float) -> None:
    """The same documents in all phases. Sequences that are all full are too many by a little."""
    assert largest_error(lengths) < bound


def test_the_lengths_do_matter() -> None:
    assert largest_error(FULL) > 0.25 > largest_error(SHORT) > 0.15


def test_tokens_a_second_of_the_paper() -> None:
    """312k and 239k a GPU for base, 142k and 116k for large."""
    found = [
        run.phase.total_tokens / run.hours / 3600 / run.machine.num_gpus / 1e3
        for run in published_runs()
        if run.phase.name != "decay"
    ]
    assert found == pytest.approx([312, 239, 142, 116], abs=0.6)


def test_shares_of_peak() -> None:
    shares = {
        run.size: run.share_of_peak for run in published_runs(FULL) if "pre" in run.phase.name
    }
    assert shares == pytest.approx({"base": 0.26, "large": 0.33}, abs=0.005)


@pytest.mark.parametrize(
    ("preset", "size"), [("tiny", "base"), ("base", "base"), ("large", "large"), ("1b", "large")]
)
def test_the_nearest_size_lends_its_share(preset: str, size: str) -> None:
    assert nearest_run(EncoderConfig.preset(preset)).size == size
