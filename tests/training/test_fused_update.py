"""The kernels of an optimizer's step, against the step by torch's operations."""

import sys
from types import SimpleNamespace

import pytest
import torch
from tests.model.gpu.conftest import device
from tests.training.test_optimizer import PEAK, averages, groups, set_gradients
from torch import Tensor, nn

from modernbert.training import optimizer as optimizers
from modernbert.training.optimizer import StableAdamW, TensorUpdate

__all__ = ["device"]

SHAPES = [(20, 32), (32,), (7, 5, 3), (0, 4), ()]  # several blocks, part of one, none


@pytest.fixture
def kernels(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller blocks, so that small tensors have several."""
    from modernbert.training import fused_update

    del device
    monkeypatch.setattr(fused_update, "BLOCK", 512)
    fused_update._blocks.cache_clear()


def make_parameters(device: torch.device) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    drawn = (0.02 * torch.randn(shape, generator=generator) for shape in SHAPES)
    return [nn.Parameter(each.to(device)) for each in drawn]


class OnKernels(StableAdamW):
    """As on a GPU: all tensors in one go, and the device's word on whether a step is taken."""

    def step(self, *, taken: Tensor) -> None:  # type: ignore[override]
        self.taken = taken
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(optimizers, "has_triton", lambda _: True)
            super().step()

    def _update_group(self, parameters: list[Tensor], group: dict, _: Tensor | None) -> None:
        super()._update_group(parameters, group, self.taken)

    def _batches(self, parameters: list[Tensor]) -> list[tuple[int, list[Tensor]]]:
        return [(int(self.state[parameters[0]]["step"]), parameters)]

    def _update(self, *_: object) -> None:
        raise AssertionError("by torch's operations")


@pytest.mark.gpu
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("clipping", [True, False])
def test_fifty_steps_equal_torch(clipping: bool, device: torch.device) -> None:
    """With gradients that jump and steps that are not taken, whose gradients are no numbers."""
    ours, plain = make_parameters(device), make_parameters(torch.device("cpu"))
    options = {"peak_learning_rate": PEAK, "update_clipping": clipping}
    fused, other = OnKernels(groups(ours), **options), StableAdamW(groups(plain), **options)
    for step in range(50 if clipping else 25):
        set_gradients(plain, step)
        for one, two in zip(ours, plain, strict=True):
            one.grad = two.grad.to(device)
        if not (taken := step % 10 != 7):
            ours[0].grad[3, 5] = torch.nan
        for group in [*fused.param_groups, *other.param_groups]:
            group["lr"] = PEAK * min(1.0, (step + 1) / 10)
        fused.step(taken=torch.tensor(taken, device=device))
        other.step(taken=torch.tensor(taken))
        if step == 20:  # as a run that goes on
            fused, state = OnKernels(groups(ours), **options), fused.state_dict()
            fused.load_state_dict(state)
    for one, two in zip(ours, plain, strict=True):
        torch.testing.assert_close(one.cpu(), two, rtol=1e-5, atol=3e-7)
    for one, two in zip(averages(fused), averages(other), strict=True):
        expected = torch.tensor(two)
        near = 1e-6 * float(expected.abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(torch.tensor(one), expected, rtol=1e-5, atol=near)


def tensor_update(weight: Tensor, gradient: Tensor) -> TensorUpdate:
    return TensorUpdate(
        weight=weight,
        gradient=gradient,
        mean=torch.zeros_like(weight),
        square=torch.full_like(weight, 1e-4),
        new_mean=0.1,
        new_square=0.02,
        eps=1e-6,
        rate=0.1,
        decay=0.5,
        is_clipped=True,
    )


@pytest.mark.gpu
@pytest.mark.usefixtures("kernels")
def test_parts_of_a_tensor_go_by_the_surprise_of_the_whole(device: torch.device) -> None:
    """Two processes with a part each, one of them odd and not aligned, change what one would."""
    from modernbert.training.fused_update import suits, update

    weight, gradient = torch.randn(2, 1_601, device=device)
    before = weight.clone()
    update([tensor_update(weight, gradient)], [1_601], None, lambda sums: sums)
    sums: list[Tensor] = []
    for add_up in (lambda own: sums.append(own) or own, lambda _: sums[0] + sums[1]):
        whole = before.clone()
        for part in (slice(0, 901), slice(901, None)):
            update([tensor_update(whole[part], gradient[part])], [1_601], None, add_up)
    torch.testing.assert_close(whole, weight)
    assert float((weight - before).abs().max()) > 0.01
    none = torch.zeros(0, 4, device=device)  # as of a process that has none of a tensor's rows
    update([tensor_update(none, none)], [4], None, lambda own: own + sums[0])
    assert not suits([tensor_update(before[::2], gradient[::2])])
    assert not suits([tensor_update(before.double(), gradient.double())])


@pytest.mark.parametrize("suits", [True, False])
def test_kernels_take_what_suits_them(suits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in for them; the rest is left to torch."""
    calls: list[tuple[list[int], bool]] = []

    def update(_: object, num_values: list[int], taken: Tensor, __: object) -> None:
        calls.append((num_values, bool(taken)))

    stand_in = SimpleNamespace(update=update, suits=lambda _: suits)
    monkeypatch.setitem(sys.modules, "modernbert.training.fused_update", stand_in)
    monkeypatch.setattr("modernbert.training.fused_update", stand_in, raising=False)
    parameters = make_parameters(torch.device("cpu"))
    set_gradients(parameters, 1)
    before = parameters[0].detach().clone()
    optimizer = OnKernels(groups(parameters), peak_learning_rate=PEAK)
    if suits:
        optimizer.step(taken=torch.tensor(True))
        assert calls == [([640, 32], True), ([105, 0], True), ([1], True)]
        assert torch.equal(parameters[0], before)
    else:
        with pytest.raises(AssertionError, match="by torch's operations"):
            optimizer.step(taken=torch.tensor(True))
