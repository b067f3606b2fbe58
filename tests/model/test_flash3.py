"""FlashAttention 3: when `auto` takes it, and how it is called, seen with a stand-in for it."""

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from tests.model.test_attention import Case
from torch import Tensor

from modernbert.errors import ConfigError
from modernbert.model import attention, choices, layout
from modernbert.model.attention import attend
from modernbert.model.choices import describe_attention, has_flash3
from modernbert.model.flash3 import flash3
from modernbert.model.layout import Layout

GPU = torch.device("cuda", 0)
SHARED = (
    "Tensor? cu_seqlens_q = None, Tensor? cu_seqlens_k = None, int? max_seqlen_q = None, "
    "int? max_seqlen_k = None, float? softmax_scale = None, bool is_causal = False, "
    "int window_size_left = -1, int window_size_right = -1"
)


def dense(query: Tensor, key: Tensor, named: dict) -> tuple[Tensor, Tensor]:
    """Who attends to whom how much, (heads, tokens, tokens); and the logarithms of the sums."""
    borders, rows = named["cu_seqlens_q"].long(), torch.arange(len(query))
    sequences = torch.bucketize(rows, borders[1:], right=True)
    apart = rows[:, None] - rows
    left, right = (named.get(f"window_size_{side}", -1) for side in ("left", "right"))
    assert named.get("is_causal", False) == ((left, right) == (-1, 0))
    seen = sequences[:, None] == sequences
    seen &= (apart <= left) if left >= 0 else True
    seen &= (-apart <= right) if right >= 0 else True
    scores = torch.einsum("qhd,khd->hqk", query, key) * named["softmax_scale"]
    scores = scores.masked_fill(~seen, -torch.inf)
    return scores.softmax(2), scores.logsumexp(2).float()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict]]:
    """The package's operators, on a CPU and in any precision; how they were called."""
    calls: list[dict] = []
    library = torch.library.Library("flash_attn_3", "DEF")
    library.define(
        f"fwd(Tensor q, Tensor k, Tensor v, *, {SHARED}, int num_splits = 0) "
        "-> (Tensor, Tensor, Tensor, Tensor)"
    )
    library.define(
        "bwd(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor softmax_lse, "
        f"Tensor(a!)? dq, Tensor(b!)? dk, Tensor(c!)? dv, *, {SHARED}) -> Tensor"
    )

    def forward(query: Tensor, key: Tensor, value: Tensor, **named: object) -> tuple[Tensor, ...]:
        calls.append(named)
        assert named.pop("num_splits") == 1
        weights, sums = dense(query, key, named)
        attended = torch.einsum("hqk,khd->qhd", weights, value).contiguous()
        return attended, sums, query.new_empty(0), query.new_empty(0)

    def backward(
        d_out: Tensor, query: Tensor, key: Tensor, value: Tensor, *more, **named
    ) -> Tensor:
        calls.append(named)
        _, sums, d_query, d_key, d_value = more
        weights, expected_sums = dense(query, key, named)
        torch.testing.assert_close(sums, expected_sums)
        d_weights = torch.einsum("qhd,khd->hqk", d_out, value)
        d_scores = weights * (d_weights - (weights * d_weights).sum(2, keepdim=True))
        d_scores = d_scores * named["softmax_scale"]
        d_query.copy_(torch.einsum("hqk,khd->qhd", d_scores, key))
        d_key.copy_(torch.einsum("hqk,qhd->khd", d_scores, query))
        d_value.copy_(torch.einsum("hqk,qhd->khd", weights, d_out))
        return torch.empty(0)

    library.impl("fwd", forward, "CPU")
    library.impl("bwd", backward, "CPU")
    monkeypatch.setitem(sys.modules, "flash_attn_interface", ModuleType("flash_attn_interface"))
    has_flash3.cache_clear()
    yield calls
    has_flash3.cache_clear()
    library._destroy()


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("window", [None, 5])
def test_attends_with_equal_gradients(
    installed: list[dict], window: int | None, is_causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case([9, 1, 30, 4], torch.float64, size=16)
    monkeypatch.setattr(attention, "HALF", (torch.float64,))
    for name in ("has_varlen", "has_flash3"):
        monkeypatch.setattr(layout, name, lambda _: True)
    results = []
    for back_end in ("auto", "blocks"):
        inputs = [x.detach().clone().requires_grad_() for x in case.tensors[:3]]
        borders = Layout(case.batch, 5, attention=back_end, is_causal=is_causal)
        output = attend(*inputs, borders, window=window)
        results.append([output, *torch.autograd.grad(output.square().sum(), inputs)])
    assert len(installed) == 2  # forward and backward
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("installed")
def test_compilers_may_take_it_as_it_is() -> None:
    query, key, value = (
        Case([9, 1, 4], torch.float64, size=16).tensors[:3].requires_grad_().unbind()
    )
    borders = torch.tensor([0, 9, 10, 14], dtype=torch.int32)
    torch.library.opcheck(flash3, (query, key, value, borders, 9, -1, -1))


@pytest.mark.parametrize(
    ("capability", "taken"), [((9, 0), "flash3"), ((8, 0), "varlen"), ((10, 0), "varlen")]
)
@pytest.mark.usefixtures("installed")
def test_auto_takes_it_on_hoppers(
    capability: tuple[int, int], taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert has_flash3(GPU) is (taken == "flash3")
    assert describe_attention(GPU).startswith(taken)


@pytest.mark.parametrize("module", [None, ModuleType("flash_attn_interface")])
def test_not_where_it_is_absent_or_empty(
    module: ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setitem(sys.modules, "flash_attn_interface", module)
    assert not has_flash3.__wrapped__(GPU)
    monkeypatch.setattr(choices, "has_flash3", lambda _: False)
    assert describe_attention(GPU).startswith("varlen")
    with pytest.raises(ConfigError, match="flash_attn_interface of FlashAttention 3"):
        choices.choose_attention("flash3", GPU)
