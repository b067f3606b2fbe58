"""The chunked cross entropy is torch's own, never holds many logits, and multiplies thrice."""

from typing import Any

import pytest
import torch
from tests.model.gpu import stand_ins
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from modernbert.errors import SettingsError
from modernbert.tasks.pretraining import vocabulary_loss
from modernbert.tasks.pretraining.vocabulary_loss import loss_and_hits, vocabulary_cross_entropy

ROWS, VOCABULARY, WIDTH = 37, 211, 16

# From all rows in one chunk to a row in each, with unequal chunks between.
LIMITS = (1 << 20, 4 * VOCABULARY * 10, 4 * VOCABULARY * 7, 1)

Operands = tuple[Tensor, Tensor, Tensor, Tensor]


def operands(dtype: torch.dtype = torch.float32, *, rows: int = ROWS) -> Operands:
    """hidden, weight, bias and labels."""
    generator = torch.Generator().manual_seed(3)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in ((rows, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,))
    )
    return hidden, weight, bias, torch.randint(0, VOCABULARY, (rows,), generator=generator)


def plain(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """What it must equal."""
    logits = functional.linear(hidden, weight, bias)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return functional.cross_entropy(wide, labels, reduction="sum")


def with_gradients(loss: Tensor, *tensors: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, tensors)]


@pytest.mark.parametrize("rows", [ROWS, ROWS + 5])
def test_by_the_kernel_of_a_gpu(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where some rows have no label."""
    hidden, weight, bias, labels = operands(torch.float64, rows=rows)
    labels = labels[:ROWS]
    tensors = hidden, weight, bias
    expected = with_gradients(plain(hidden[:ROWS], weight, bias, labels), *tensors)
    monkeypatch.setattr(vocabulary_loss, "is_ready", lambda _: True)
    calls = stand_ins.put(monkeypatch)
    loss = vocabulary_cross_entropy(*tensors, labels, max_logits_bytes=4 * VOCABULARY * 10)
    for ours, theirs in zip(with_gradients(loss, *tensors), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert calls == ["become_gradients"] * -(-rows // 10)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks in a chunk, the last smaller than the others."""
    monkeypatch.setattr(vocabulary_loss, "_CPU_BLOCK_BYTES", 4 * VOCABULARY * 4)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)], ids=["32", "64"]
)
def test_value_and_gradients(dtype: torch.dtype, tolerance: float, limit: int) -> None:
    *tensors, labels = operands(dtype)
    scale = 1 / ROWS  # as a trainer does
    expected = with_gradients(plain(*tensors, labels) * scale, *tensors)
    loss = vocabulary_cross_entropy(*tensors, labels, max_logits_bytes=limit)
    assert loss.dtype == dtype and loss.shape == ()
    for ours, theirs in zip(with_gradients(loss * scale, *tensors), expected, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_gradients_are_the_slopes() -> None:
    *tensors, labels = operands(torch.float64)
    limit = 4 * VOCABULARY * 10
    loss = vocabulary_cross_entropy(*tensors, labels, max_logits_bytes=limit)
    _, *gradients = with_gradients(loss, *tensors)
    directions = [torch.randn_like(tensor) for tensor in tensors]
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    ends = [
        plain(*(t.detach() + step * d for t, d in zip(tensors, directions, strict=True)), labels)
        for step in (1e-6, -1e-6)
    ]
    torch.testing.assert_close((ends[0] - ends[1]) / 2e-6, slope, rtol=1e-6, atol=0)


@pytest.mark.parametrize("limit", LIMITS)
def test_under_autocast(limit: int) -> None:
    """Products in bfloat16, the loss in float32, gradients in the formats of their tensors."""
    hidden, weight, bias, labels = operands()
    hidden = hidden.detach().bfloat16().requires_grad_()  # as the head's output is
    exact = with_gradients(plain(hidden.float(), weight, bias, labels), hidden, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        torchs = with_gradients(plain(hidden, weight, bias, labels), hidden, weight, bias)
        loss = vocabulary_cross_entropy(hidden, weight, bias, labels, max_logits_bytes=limit)
        ours = with_gradients(loss, hidden, weight, bias)
    assert [each.dtype for each in ours] == [each.dtype for each in torchs]
    assert [each.dtype for each in ours] == [torch.float32, torch.bfloat16, *[torch.float32] * 2]
    assert float(ours[0]) == pytest.approx(float(torchs[0]), rel=1e-5)
    for mine, theirs, right in zip(ours[1:], torchs[1:], exact[1:], strict=True):
        error, other_error = ((each - right).float().norm() for each in (mine, theirs))
        assert error < 1.1 * other_error + 1e-3 * right.float().norm()


def test_only_as_many_logits_as_allowed() -> None:
    class Sizes(TorchDispatchMode):
        """Notes the largest tensor with a column for each token."""

        largest = 0
        products = 0

        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = function(*args, **(kwargs or {}))
            name = function.name()
            if name != "aten::t" and getattr(result, "shape", ())[1:] == (VOCABULARY,):
                Sizes.largest = max(Sizes.largest, len(result))
            Sizes.products += name.startswith(("aten::mm", "aten::addmm"))
            return result

    *tensors, labels = operands()
    with Sizes():
        loss = vocabulary_cross_entropy(*tensors, labels, max_logits_bytes=4 * VOCABULARY * 12)
        loss.backward()
    assert Sizes.largest == 10  # four nearly equal chunks
    assert Sizes.products == 3 * 4  # three for each of the four chunks


def test_a_label_of_no_probability() -> None:
    hidden = torch.tensor([[1.0]], requires_grad=True)
    weight = torch.tensor([[0.0], [500.0]], requires_grad=True)
    bias = torch.zeros(2, requires_grad=True)
    loss = vocabulary_cross_entropy(hidden, weight, bias, torch.tensor([0]))
    assert with_gradients(loss, bias)[1].tolist() == [-1.0, 1.0]
    assert loss.item() == 500.0


def test_no_rows() -> None:
    *tensors, labels = operands(rows=0)
    loss = vocabulary_cross_entropy(*tensors, labels)
    assert loss.item() == 0.0 and not loss.requires_grad


def test_frozen_operands() -> None:
    hidden, weight, bias, labels = operands()
    expected = with_gradients(plain(hidden, weight, bias, labels), bias)[1]
    loss = vocabulary_cross_entropy(hidden.detach(), weight.detach(), bias, labels)
    torch.testing.assert_close(with_gradients(loss, bias)[1], expected)
    with torch.no_grad():
        assert not vocabulary_cross_entropy(hidden, weight, bias, labels).requires_grad


def test_gradients_are_used_once() -> None:
    *tensors, labels = operands()
    loss = vocabulary_cross_entropy(*tensors, labels)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="used already"):
        loss.backward()


def test_a_limit_below_a_byte() -> None:
    *tensors, labels = operands()
    with pytest.raises(SettingsError, match="max_logits_bytes: got 0"):
        vocabulary_cross_entropy(*tensors, labels, max_logits_bytes=0)


@pytest.mark.parametrize("limit", LIMITS)
def test_loss_and_hits(limit: int) -> None:
    hidden, weight, bias, labels = operands()
    logits = functional.linear(hidden, weight, bias)
    labels[::3] = logits.argmax(1)[::3]
    loss, hits = loss_and_hits(hidden, weight, bias, labels, max_logits_bytes=limit)
    torch.testing.assert_close(loss, plain(hidden, weight, bias, labels))
    assert hits.item() == (logits.argmax(1) == labels).sum() >= 13
    assert not loss.requires_grad


def test_hits_of_no_rows() -> None:
    loss, hits = loss_and_hits(*operands(rows=0))
    assert (loss.item(), hits.item()) == (0.0, 0)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("num_labels", [1, 20, ROWS - 1])
def test_of_rows_after_the_labels_nothing_is_asked(limit: int, num_labels: int) -> None:
    *tensors, labels = operands()
    asked = labels[:num_labels]
    expected = with_gradients(plain(tensors[0][:num_labels], *tensors[1:], asked), *tensors)
    loss = vocabulary_cross_entropy(*tensors, asked, max_logits_bytes=limit)
    for ours, theirs in zip(with_gradients(loss, *tensors), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    loss, _ = loss_and_hits(*tensors, asked, max_logits_bytes=limit)
    torch.testing.assert_close(loss, expected[0])
