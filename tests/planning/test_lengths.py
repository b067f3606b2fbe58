"""Document lengths, and the sequences that packing makes of them."""

import numpy as np
import pytest

from modernbert.data.mixture import Documents
from modernbert.data.packing import NUM_SPECIAL, split_documents
from modernbert.errors import InputError
from modernbert.planning.lengths import LONG, WEB, DocumentLengths


def of(*lengths: int) -> DocumentLengths:
    return DocumentLengths.measured(np.array(lengths), source="test")


def test_pieces_of_a_few_documents() -> None:
    """At 12: 25 tokens are 10, 10 and 5; 10 are one piece; 3 are 3; each with two more."""
    pieces = of(25, 10, 3, 3).pieces(12)
    assert pieces.lengths.tolist() == [5, 7, 12]
    assert pieces.shares == pytest.approx(np.array([10, 7, 36]) / 53)
    assert pieces.content_share == pytest.approx(41 / 53)


@pytest.mark.parametrize("max_seqlen", [3, 64, 1024])
def test_pieces_are_those_that_packing_makes(max_seqlen: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 3000, 500)
    stops = lengths.cumsum()
    documents = Documents(np.zeros_like(lengths), stops - lengths, stops)
    cut = split_documents(documents, max_seqlen).lengths + NUM_SPECIAL
    values, counts = np.unique(cut, return_counts=True)
    pieces = of(*lengths).pieces(max_seqlen)
    assert pieces.lengths.tolist() == values.tolist()
    assert pieces.shares == pytest.approx(values * counts / cut.sum())


@pytest.mark.parametrize(("lengths", "mean"), [(WEB, 1_300), (LONG, 3_800)])
def test_lognormal_lengths_have_their_mean(lengths: DocumentLengths, mean: float) -> None:
    assert lengths.mean == pytest.approx(mean, rel=0.01)
    assert lengths.shares.sum() == pytest.approx(1)


def test_a_lognormal_is_one() -> None:
    drawn = np.random.default_rng(0).lognormal(np.log(1_300) - 1.2**2 / 2, 1.2, 400_000)
    for length in (100, 1_000, 10_000):
        share = drawn[drawn > length].sum() / drawn.sum()
        assert WEB.share_of_tokens_above(length) == pytest.approx(share, abs=0.01)


def test_long_documents_are_upsampled_as_in_the_literature() -> None:
    """From about 30% of the tokens in documents above 4,096 to about 70%."""
    assert 0.3 < WEB.share_of_tokens_above(4_096) < 0.4
    assert 0.68 < LONG.share_of_tokens_above(4_096) < 0.72


def test_weights_of_a_mixture_are_shares_of_its_tokens() -> None:
    mixed = DocumentLengths.mixed([of(10), of(1000)], [3.0, 1.0], source="")
    assert mixed.share_of_tokens_above(10) == pytest.approx(0.25)
    assert mixed.mean == pytest.approx(4 / (3 / 10 + 1 / 1000))


def test_no_spread_is_one_length() -> None:
    pieces = DocumentLengths.lognormal(8_190, 0.0, source="").pieces(8_192)
    assert (pieces.lengths.tolist(), pieces.shares.tolist()) == ([8_192], [1.0])


@pytest.mark.parametrize(("mean", "sigma"), [(0.5, 1.0), (float("nan"), 1.0), (100.0, -1.0)])
def test_impossible_lengths(mean: float, sigma: float) -> None:
    with pytest.raises(InputError, match="document lengths: got a mean"):
        DocumentLengths.lognormal(mean, sigma, source="")


def test_no_documents() -> None:
    with pytest.raises(InputError, match="test: has no documents"):
        of()
