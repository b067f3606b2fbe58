"""Dropout that does not depend on what a bin is batched with."""

import pytest
import torch
from tests.model.examples import largest_difference, small_config, with_random_weights
from tests.rounding import assert_equal_but_for_rounding, terms_of_encoder

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.model.dropout import Dropout, drop
from modernbert.model.encoder import Encoder


def dropped(rate: float, keys: list[tuple[int, ...]], sizes: list[int], layer: int) -> torch.Tensor:
    ones = torch.ones(sum(sizes), 64)
    return drop(ones, Dropout(rate, keys=keys, num_tokens_each=sizes).draw(ones, layer))


def test_a_run_s_draws_come_from_its_key_alone() -> None:
    keys, sizes = [(7, 1, 0), (7, 1, 1), (7, 1, 2)], [5, 0, 20]
    together = dropped(0.3, keys, sizes, layer=2).split(sizes)
    for key, size, rows in zip(keys, sizes, together, strict=True):
        assert torch.equal(rows, dropped(0.3, [key], [size], layer=2))
    turned = dropped(0.3, keys[::-1], sizes[::-1], layer=2).split(sizes[::-1])
    assert all(map(torch.equal, together, turned[::-1]))


def test_other_keys_and_layers_draw_otherwise() -> None:
    first = dropped(0.5, [(1, 2, 3)], [50], layer=0)
    for key, layer in (((1, 2, 4), 0), ((1, 2, 3), 1), ((12, 3), 0), ((1, 23), 0)):
        other = dropped(0.5, [key], [50], layer=layer)
        assert 0.4 < (first == other).float().mean() < 0.6


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_and_scale(rate: float) -> None:
    values = dropped(rate, [(0,)], [2_000], layer=0)
    assert values.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)], rel=1e-6)
    assert (values == 0).float().mean().item() == pytest.approx(rate, abs=0.01)
    assert values.mean().item() == pytest.approx(1, abs=0.02)


def test_the_gradient_is_dropped_alike() -> None:
    hidden = torch.ones(20, 8, requires_grad=True)
    output = drop(hidden, Dropout(0.5, keys=[(3,)], num_tokens_each=[20]).draw(hidden, 0))
    output.sum().backward()
    assert torch.equal(hidden.grad, output.detach())  # type: ignore[arg-type]


@pytest.mark.parametrize("hidden_size", [32, 128])
def test_an_encoder_gives_a_bin_the_same_in_any_company(hidden_size: int) -> None:
    encoder = with_random_weights(Encoder(small_config(hidden_size=hidden_size)))
    first, second = [[5, 6, 7], [8, 9]], [[10, 11, 12, 13]]

    def run(bins: list[list[list[int]]], keys: list[tuple[int, ...]]) -> torch.Tensor:
        sizes = [sum(map(len, sequences)) for sequences in bins]
        batch = PackedBatch.from_sequences([ids for sequences in bins for ids in sequences])
        return encoder(batch, dropout=Dropout(0.2, keys=keys, num_tokens_each=sizes))

    together = run([first, second], [(0, 1), (0, 2)])
    num_terms = terms_of_encoder(encoder.config, 4)
    for rows, alone in (
        (together[:5], run([first], [(0, 1)])),
        (together[5:], run([second], [(0, 2)])),
    ):
        assert_equal_but_for_rounding(rows, alone, num_terms=num_terms)
    assert largest_difference(together[:5], run([first], [(0, 3)])) > 1e-2
    batch = PackedBatch.from_sequences(first)
    assert largest_difference(together[:5], encoder(batch)) > 1e-2


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_refuses_rates(rate: float) -> None:
    with pytest.raises(InputError, match="dropout rate"):
        Dropout(rate, keys=[], num_tokens_each=[])


def test_refuses_runs_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="got 1 keys for 2 runs"):
        Dropout(0.1, keys=[(1,)], num_tokens_each=[1, 2])
    with pytest.raises(InputError, match="its runs have 3 tokens, the batch has 4"):
        Dropout(0.1, keys=[(1,)], num_tokens_each=[3]).draw(torch.ones(4, 2), 0)
