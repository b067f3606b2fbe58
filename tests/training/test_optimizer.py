"""StableAdamW against torch-optimi, and what an optimizer owes to its user."""

import copy
import math

import pytest
import torch
from torch import nn

from modernbert.errors import InputError, SettingsError
from modernbert.model.native.functions import update
from modernbert.model.native.loading import library
from modernbert.training.optimizer import (
    StableAdamW,
    TensorUpdate,
    Update,
    clip_gradients,
    embedding_groups,
    parameter_groups,
)

PEAK = 8e-3

both_ways = pytest.mark.parametrize("update", [None, update], ids=["torch", "C"])
needs_kernels = pytest.mark.skipif(library() is None, reason="no C kernels on this machine")


def make_parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(64, 32), (32,), (7, 5, 3), (100, 16), ()]
    return [nn.Parameter(torch.randn(shape, generator=generator) * 0.02) for shape in shapes]


def groups(parameters: list[nn.Parameter]) -> list[dict[str, object]]:
    return [
        {"params": parameters[:2], "weight_decay": 0.01},
        {"params": parameters[2:4], "weight_decay": 0.0},
        {"params": parameters[4:], "weight_decay": 1e-5},
    ]


def set_gradients(parameters: list[nn.Parameter], step: int) -> None:
    """Gradients whose size jumps, so that the clipping has something to do."""
    generator = torch.Generator().manual_seed(step)
    for parameter in parameters:
        size = 10.0 ** (step % 7 - 3)
        parameter.grad = torch.randn(parameter.shape, generator=generator) * size


@both_ways
def test_equals_the_reference_over_50_steps(update: Update | None) -> None:
    optimi = pytest.importorskip("optimi")
    ours, theirs = make_parameters(), make_parameters()
    optimizer = StableAdamW(groups(ours), peak_learning_rate=PEAK, update=update)
    with pytest.warns(UserWarning, match="weight_decay"):
        reference = optimi.StableAdamW(
            groups(theirs), lr=PEAK, betas=(0.9, 0.98), eps=1e-6, decouple_lr=True, max_lr=PEAK,
            foreach=False, triton=False,
        )  # fmt: skip
    for step in range(50):
        rate = PEAK * min(1.0, (step + 1) / 10) * (0.5 if step > 35 else 1.0)
        for group in [*optimizer.param_groups, *reference.param_groups]:
            group["lr"] = rate
        for parameters in (ours, theirs):
            set_gradients(parameters, step)
        optimizer.step()
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=3e-7)


def test_first_step_worked_by_hand() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    parameter.grad = torch.tensor([0.5, -0.25], dtype=torch.float64)
    StableAdamW([parameter], peak_learning_rate=0.1, weight_decay=0.02).step()
    # Debiased, the first averages are the gradient and its square: RMS 1, update sign(g).
    expected = [p - 0.1 * g / (abs(g) + 1e-6) - 0.02 * p for p, g in [(1.0, 0.5), (-2.0, -0.25)]]
    assert parameter.tolist() == pytest.approx(expected, rel=1e-12)


def test_a_surprising_gradient_lowers_its_own_tensor_only() -> None:
    surprised, calm = (nn.Parameter(torch.zeros(8, dtype=torch.float64)) for _ in range(2))
    optimizer = StableAdamW([surprised, calm], peak_learning_rate=1.0)
    for _ in range(20):
        surprised.grad, calm.grad = torch.full((2, 8), 1e-3, dtype=torch.float64)
        optimizer.step()
    before = surprised.detach().clone(), calm.detach().clone()
    surprised.grad = torch.full((8,), 1.0, dtype=torch.float64)
    optimizer.step()
    square = optimizer.state[surprised]["exp_avg_sq"]
    mean = optimizer.state[surprised]["exp_avg"]
    root_mean_square = float((1.0 / square).mean().sqrt())
    assert root_mean_square > 3
    update = before[0] - surprised.detach()
    torch.testing.assert_close(update, mean / (square.sqrt() + 1e-6) / root_mean_square)
    assert (before[1] - calm.detach()).mean() == pytest.approx(1.0, rel=0.01)


def test_groups_decay_matrices_and_embeddings_only() -> None:
    module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 5))
    module[3].weight = module[0].weight  # tied
    module[2].bias.requires_grad_(False)
    decayed, plain = parameter_groups(module, 0.5)
    assert [id(p) for p in decayed["params"]] == [id(m.weight) for m in module[:2]]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)
    assert [p.shape for p in plain["params"]] == [(4,), (4,), (5,)]


def test_embeddings_have_a_rate_of_their_own() -> None:
    module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5))
    module[2].weight = module[0].weight  # tied
    module[1].bias.requires_grad_(False)
    matrices, plain = parameter_groups(module, 0.5)
    rated = embedding_groups([{**matrices, "rate_factor": 0.5}, plain], module, 3.0)
    assert [(len(each["params"]), each["rate_factor"]) for each in rated] == [
        (1, 0.5),
        (1, 1.5),
        (1, 1.0),
    ]
    assert rated[1]["params"][0] is module[0].weight
    assert [each["weight_decay"] for each in rated] == [0.5, 0.5, 0.0]


def test_parameters_without_gradient_keep_weight_and_state() -> None:
    first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = StableAdamW([first, second], peak_learning_rate=0.1, weight_decay=0.1)
    first.grad = torch.ones(3)
    optimizer.step()
    assert second.tolist() == [1, 1, 1] and second not in optimizer.state
    # Its own first step comes later and is debiased as a first step.
    first.grad, second.grad = None, torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(first, second)


@both_ways
def test_state_dict_round_trip_is_exact(update: Update | None) -> None:
    ours = make_parameters()
    optimizer = StableAdamW(groups(ours), peak_learning_rate=PEAK, update=update)
    for step in range(5):
        set_gradients(ours, step)
        optimizer.step()
    copies = [nn.Parameter(p.detach().clone()) for p in ours]
    other = StableAdamW(groups(copies), peak_learning_rate=PEAK, update=update)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(5, 10):
        for parameters, one in ((ours, optimizer), (copies, other)):
            set_gradients(parameters, step)
            one.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, copies, strict=True))


def test_gradients_are_left_as_they_were() -> None:
    parameters = make_parameters()
    set_gradients(parameters, 3)
    before = [p.grad.clone() for p in parameters]
    StableAdamW(parameters, peak_learning_rate=PEAK, weight_decay=0.1).step()
    assert all(torch.equal(p.grad, g) for p, g in zip(parameters, before, strict=True))


def test_batches_of_many_tensors_equal_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accelerator updates all tensors in one go; the figures are those of the CPU's way."""
    alone, together = make_parameters(), make_parameters()
    one = StableAdamW(alone, peak_learning_rate=PEAK, weight_decay=0.01)
    many = StableAdamW(together, peak_learning_rate=PEAK, weight_decay=0.01)
    for step in range(5):
        set_gradients(alone, step)
        set_gradients(together, step)
        one.step()
        with monkeypatch.context() as patch:
            patch.setattr(many, "_batches", lambda parameters, step=step: [(step + 1, parameters)])
            many.step()
    assert all(torch.equal(p, q) for p, q in zip(alone, together, strict=True))


@both_ways
def test_without_update_clipping_it_is_adamw(update: Update | None) -> None:
    ours, theirs = make_parameters(), make_parameters()
    options = {"betas": (0.9, 0.999), "eps": 1e-8, "update": update}
    optimizer = StableAdamW(
        ours, peak_learning_rate=PEAK, weight_decay=1e-4, update_clipping=False, **options
    )
    del options["update"]
    reference = torch.optim.AdamW(theirs, lr=PEAK, weight_decay=1e-4 / PEAK, **options)
    for step in range(30):
        for parameters in (ours, theirs):
            set_gradients(parameters, step)
        optimizer.step()
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@needs_kernels
def test_in_c_a_surprise_is_measured_over_a_whole_tensor_on_any_number_of_threads() -> None:
    """A tensor of several blocks, whose last is odd; the thread's number changes no bit."""
    results = []
    for threads, way in ((1, None), (1, update), (2, update), (3, update)):
        torch.set_num_threads(threads)
        weight = nn.Parameter(torch.randn(40_003, generator=torch.Generator().manual_seed(0)))
        optimizer = StableAdamW([weight], peak_learning_rate=PEAK, weight_decay=1e-3, update=way)
        for step in range(6):
            set_gradients([weight], step)
            optimizer.step()
        results.append(weight.detach())
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=3e-7)
    assert torch.equal(results[1], results[2]) and torch.equal(results[1], results[3])


@needs_kernels
def test_what_the_kernels_cannot_take_is_left_to_torch() -> None:
    turned = nn.Parameter(torch.randn(8, 4).T)
    wide = nn.Parameter(torch.randn(4, dtype=torch.float64))
    plain, asked = nn.Parameter(torch.randn(9)), []

    def watched(updates: list[TensorUpdate]) -> list[bool]:
        asked.append(update(updates))
        return asked[-1]

    copies = [nn.Parameter(p.detach().clone()) for p in (turned, wide, plain)]
    for parameters, way in (([turned, wide, plain], watched), (copies, None)):
        for number, parameter in enumerate(parameters):
            parameter.grad = torch.full_like(parameter, number + 1.0)
        StableAdamW(parameters, peak_learning_rate=PEAK, update=way).step()
    assert asked == [[False, False, True]]
    for one, other in zip((turned, wide, plain), copies, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("most", [0.01, 1e9])
def test_gradients_are_clipped_as_torch_does(most: float) -> None:
    module = nn.Sequential(nn.Linear(5, 3), nn.LayerNorm(3))
    module(torch.randn(7, 5)).square().sum().backward()
    other = copy.deepcopy(module)
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        two.grad = one.grad.clone()
    clip_gradients(nn.Linear(2, 2), torch.tensor(0.0), most)  # has no gradients yet
    norm = torch.nn.utils.clip_grad_norm_(other.parameters(), most)
    clip_gradients(module, norm, most)
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=2e-3, atol=0)


def averages(optimizer: StableAdamW) -> list[list[float]]:
    states = (optimizer.state[p] for group in optimizer.param_groups for p in group["params"])
    return [state[key].tolist() for state in states for key in ("exp_avg", "exp_avg_sq")]


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1.0])
def test_a_step_that_is_not_taken_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, on_device: bool, bad: float
) -> None:
    """By the host's word, or by the device's, which the host does not read."""
    ours, plain = make_parameters(), make_parameters()
    optimizer, other = (
        StableAdamW(groups(parameters), peak_learning_rate=PEAK) for parameters in (ours, plain)
    )
    update = optimizer._update

    def step(flag: bool) -> None:
        taken = torch.tensor(flag)
        if not on_device:
            optimizer.step(taken=taken)
            return
        with monkeypatch.context() as patch:
            patch.setattr(optimizer, "_update", lambda p, n, group, _: update(p, n, group, taken))
            optimizer.step()

    for number in range(5):
        for parameters in (ours, plain):
            set_gradients(parameters, number)
        step(True)
        other.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, plain, strict=True))
    before = [p.tolist() for p in ours], averages(optimizer)
    for parameter in ours:
        parameter.grad.mul_(bad)
    step(False)
    assert ([p.tolist() for p in ours], averages(optimizer)) == before
    assert {int(state["step"]) for state in optimizer.state.values()} == {6}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu_without_reading_back() -> None:
    host, device = make_parameters(), [nn.Parameter(p.detach().cuda()) for p in make_parameters()]
    optimizers = [StableAdamW(groups(p), peak_learning_rate=PEAK) for p in (host, device)]
    for step in range(20):
        set_gradients(host, step)
        for here, there in zip(host, device, strict=True):
            there.grad = here.grad.cuda()
        taken = torch.tensor(step not in (7, 8))
        on_device = taken.cuda()
        optimizers[0].step(taken=taken)
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        optimizers[1].step(taken=on_device)
        torch.cuda.set_sync_debug_mode("default")
    for here, there in zip(host, device, strict=True):
        torch.testing.assert_close(here, there.cpu(), rtol=1e-5, atol=3e-7)


@pytest.mark.parametrize(
    "changes",
    [
        {"peak_learning_rate": 0.0},
        {"peak_learning_rate": math.nan},
        {"betas": (0.9, 1.0)},
        {"eps": 0.0},
        {"weight_decay": -0.1},
    ],
)
def test_refuses_numbers_out_of_range(changes: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=f"^{next(iter(changes))}: got "):
        StableAdamW(make_parameters(), **{"peak_learning_rate": PEAK, **changes})


def test_refuses_reduced_precision() -> None:
    with pytest.raises(InputError, match="bfloat16, expected float32"):
        StableAdamW([nn.Parameter(torch.zeros(2).bfloat16())], peak_learning_rate=PEAK)
