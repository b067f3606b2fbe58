"""Which format each device computes in, and what stays float32 under autocast."""

import pytest
import torch

from modernbert.errors import SettingsError
from modernbert.training import computation as precision
from modernbert.training.computation import autocast, compute_dtype


@pytest.mark.parametrize("has_units", [False, True])
def test_auto_follows_the_units_and_a_choice_stands(
    monkeypatch: pytest.MonkeyPatch, has_units: bool
) -> None:
    monkeypatch.setattr(precision, "_has_bfloat16_units", lambda _: has_units)
    assert compute_dtype("cpu", "auto") is (torch.bfloat16 if has_units else torch.float32)
    assert compute_dtype("cpu", "float32") is torch.float32
    assert compute_dtype("cpu", "bfloat16") is torch.bfloat16


def test_this_machines_probe_answers() -> None:
    assert precision._has_bfloat16_units(torch.device("cpu")) in (True, False)
    assert not precision._has_bfloat16_units(torch.device("meta"))


def test_cuda_without_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_has_bfloat16_units", lambda _: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Old Card")
    with pytest.raises(SettingsError, match="Old Card lacks"):
        compute_dtype("cuda", "bfloat16")
    assert compute_dtype("cuda", "auto") is torch.float32


def test_products_are_bfloat16_and_norms_of_the_residual_stream_float32() -> None:
    linear, norm = torch.nn.Linear(8, 8), torch.nn.LayerNorm(8)
    hidden = torch.randn(4, 8)
    with autocast("cpu", "bfloat16"):
        product = linear(hidden)
        assert product.dtype is torch.bfloat16
        assert norm(hidden + product).dtype is torch.float32
    with autocast("cpu", "float32"):
        assert linear(hidden).dtype is torch.float32
