"""The kernels' modules as torch would write them, so that their callers are tested on a CPU."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from modernbert.model.rope import RotaryTable, rotate

PACKAGE = "modernbert.model.gpu"


def put(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the modules be imported in place of the real ones; the names of those that are called."""
    calls: list[str] = []

    def local_attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        firsts: Tensor,
        ends: Tensor,
        back: int,
        ahead: int,
    ) -> tuple[Tensor, Tensor]:
        calls.append("local_attention")
        rows = torch.arange(len(query))
        mask = (rows >= firsts[:, None]) & (rows < ends[:, None])
        apart = rows[:, None] - rows
        mask &= (apart <= back) & (apart >= -ahead)
        heads = (x.transpose(0, 1) for x in (query, key, value))
        attended = functional.scaled_dot_product_attention(*heads, attn_mask=mask)
        return attended.transpose(0, 1), torch.empty(0)

    def geglu(halves: Tensor) -> Tensor:
        calls.append("geglu")
        activated, gate = halves.chunk(2, dim=-1)
        return functional.gelu(activated) * gate

    def become_gradients(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append("become_gradients")
        wide = logits.double()
        losses = functional.cross_entropy(wide, labels, reduction="none")
        hits = functional.one_hot(labels, logits.shape[1])
        logits.copy_(wide.softmax(1) - hits)
        return losses.to(torch.promote_types(logits.dtype, torch.float32))

    def add_norm(
        hidden: Tensor, added: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        calls.append("add_norm")
        total = hidden + added.to(hidden.dtype)
        return total, functional.layer_norm(total, weight.shape, weight, eps=eps).to(added.dtype)

    def turn(heads: Tensor, cos: Tensor, sin: Tensor, direction: float) -> Tensor:
        calls.append("turn")
        return rotate(heads, RotaryTable(cos, direction * sin))

    for function, module in (
        (add_norm, "add_norm"),
        (turn, "rotation"),
        (local_attention, "local_attention"),
        (geglu, "geglu"),
        (become_gradients, "cross_entropy"),
    ):
        stand_in = SimpleNamespace(**{function.__name__: function})
        monkeypatch.setitem(sys.modules, f"{PACKAGE}.{module}", stand_in)
    return calls
