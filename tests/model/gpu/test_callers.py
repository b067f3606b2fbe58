"""Who takes the kernels, when, and with what: seen on a CPU with stand-ins for them."""

import pytest
import torch
from tests.model.examples import largest_difference, ragged_batch, small_config, with_random_weights
from tests.model.gpu import stand_ins

from modernbert.batch import PackedBatch
from modernbert.model import attention, layer, layout
from modernbert.model.encoder import Encoder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(layout, "has_kernels", lambda _: True)
    for module in (attention, layer):
        monkeypatch.setattr(module, "HALF", (torch.float64,))
    return stand_ins.put(monkeypatch)


def test_local_layers_and_geglu_with_equal_gradients(calls: list[str]) -> None:
    plain = with_random_weights(Encoder(small_config())).double()
    ours = with_random_weights(Encoder(small_config())).double()
    batch = ragged_batch([3, 0, 12, 1, 7])
    plain.attention = "blocks"
    output = ours(batch)
    assert calls.count("local_attention") == 2 and calls.count("geglu") == 4
    calls.clear()
    expected = _without_kernels(plain, batch)
    assert not calls
    assert largest_difference(output, expected) < 1e-12
    for each in (output, expected):
        each.square().sum().backward()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert largest_difference(one.grad, other.grad) < 1e-9 * float(other.grad.abs().max() + 1)


@pytest.mark.parametrize("is_compiling", [False, True])
@pytest.mark.parametrize("fuses", [False, True])
def test_compiled_layers_norm_by_the_kernel_on_request_alone(
    is_compiling: bool, fuses: bool, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: is_compiling)
    stream, added = torch.randn(5, 8), torch.randn(5, 8, dtype=torch.float64)
    norm = layer.LayerNorm(8, 1e-5)
    if not fuses and is_compiling:
        added = added.float()
    borders = layout.Layout(ragged_batch([5]), 4, fuses=fuses)
    total, normed = layer.add_and_norm(stream, added, norm, borders)
    assert calls == (["add_norm"] if fuses or not is_compiling else [])
    assert largest_difference(total, stream + added) < 1e-6
    assert largest_difference(normed, norm((stream + added).float())) < 1e-5


def _without_kernels(model: Encoder, batch: PackedBatch) -> torch.Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "has_kernels", lambda _: False)
        return model(batch)


@pytest.mark.parametrize("attention", ["blocks", "flex"])
@torch.no_grad()
def test_a_back_end_that_is_asked_for_is_taken(attention: str, calls: list[str]) -> None:
    model = with_random_weights(Encoder(small_config())).double()
    model.attention = attention  # type: ignore[assignment]
    model(ragged_batch([3, 12]))
    assert "local_attention" not in calls


@torch.no_grad()
def test_not_for_other_formats_and_sizes(calls: list[str]) -> None:
    model = with_random_weights(Encoder(small_config()))  # in float32
    model(ragged_batch([3, 12]))
    assert not calls
    for name, value in (("HEAD_SIZES", (64,)), ("MAX_TOKENS", 14)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attention, name, value)
            model.double()(ragged_batch([3, 12]))
    assert set(calls) == {"geglu", "turn"}
