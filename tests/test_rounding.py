"""The bound of rounding holds for sums in any order, and not for a sum that lacks a term."""

import pytest
import torch
from tests.rounding import assert_equal_but_for_rounding


@pytest.mark.parametrize("num_terms", [10, 100, 1_000])
def test_sums_in_any_order_are_equal_and_a_lost_term_is_not(num_terms: int) -> None:
    generator = torch.Generator().manual_seed(0)
    terms = torch.rand(num_terms, generator=generator)
    exact = terms.double().sum()
    for order in (terms, terms.flip(0), terms[torch.randperm(num_terms, generator=generator)]):
        one_by_one = order.cumsum(0)[-1]
        assert_equal_but_for_rounding(one_by_one, exact, num_terms=num_terms)
    with pytest.raises(AssertionError):
        assert_equal_but_for_rounding(terms[1:].sum(), exact, num_terms=num_terms)
