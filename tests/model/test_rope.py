"""Rotary positions against their formula, pair by pair."""

import math

import pytest
import torch

from modernbert.model.rope import rotary_table, rotate


def test_each_pair_is_turned_by_its_angle() -> None:
    heads = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])  # the pairs are (1, 3) and (2, 4)
    turned = rotate(heads, rotary_table(torch.tensor([5]), 4, 100.0))[0, 0].tolist()
    for pair, (x, y) in enumerate([(1.0, 3.0), (2.0, 4.0)]):
        angle = 5 * 100.0 ** (-2 * pair / 4)
        assert turned[pair] == pytest.approx(x * math.cos(angle) - y * math.sin(angle), abs=1e-6)
        assert turned[pair + 2] == pytest.approx(
            y * math.cos(angle) + x * math.sin(angle), abs=1e-6
        )


def test_products_depend_on_the_distance_alone() -> None:
    query, key = torch.randn(2, 1, 3, 16, generator=torch.Generator().manual_seed(0))

    def product(query_at: int, key_at: int) -> torch.Tensor:
        at = (rotary_table(torch.tensor([place]), 16, 10_000.0) for place in (query_at, key_at))
        return (rotate(query, next(at)) * rotate(key, next(at))).sum(-1)

    assert torch.allclose(product(3, 10), product(103, 110), atol=1e-4)
    assert not torch.allclose(product(3, 10), product(3, 11), atol=1e-2)


def test_position_0_turns_nothing_and_types_stay() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        heads = torch.randn(1, 2, 8).to(dtype)
        turned = rotate(heads, rotary_table(torch.tensor([0]), 8, 10_000.0))
        assert turned.dtype == dtype
        assert torch.equal(turned, heads)


def test_angles_are_float32_at_far_positions() -> None:
    table = rotary_table(torch.tensor([8191]), 64, 10_000.0)
    assert table.cos.dtype == table.sin.dtype == torch.float32
    assert table.cos[0, 0].item() == pytest.approx(math.cos(8191.0), abs=1e-5)
