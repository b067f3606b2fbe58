"""Muon against torch's own, its groups, and the settings that choose an optimizer."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from modernbert.batch import PackedBatch
from modernbert.errors import SettingsError
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize
from modernbert.settings import parse, to_mapping
from modernbert.training import muon
from modernbert.training.muon import Muon, matrix_groups, orthogonalize
from modernbert.training.optimizer import StableAdamW, parameter_groups
from modernbert.training.training_settings import TrainingSettings

PEAK = 8e-3

needs_torchs = pytest.mark.skipif(
    not hasattr(torch.optim, "Muon"), reason="torch has its own Muon from version 2.9 on"
)


class Block(nn.Module):
    """A matrix of three parts, one of one part, and what is left to AdamW."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = nn.Embedding(9, 8)
        self.joined, self.single = nn.Linear(8, 24), nn.Linear(16, 8, bias=False)
        self.matrices = {"joined": 3, "single": 1}
        for each in self.parameters():
            each.data.normal_(std=0.1, generator=generator)


def make(module: nn.Module, **options: Any) -> Muon:
    groups = matrix_groups(parameter_groups(module, 1e-4), module)
    return Muon(groups, peak_learning_rate=PEAK, **options)


def set_gradients(module: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 10.0 ** (step % 5 - 2)


@needs_torchs
def test_equals_torchs_own_over_50_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three parts of a matrix are three matrices of torch's; the rest is torch's AdamW."""
    monkeypatch.setattr(muon, "compute_dtype", lambda *_: torch.bfloat16)  # as torch does
    ours, other = Block(), Block()
    optimizer = make(ours)
    parts = [*other.joined.weight.detach().chunk(3), other.single.weight]
    parts = [nn.Parameter(each.detach().clone()) for each in parts]
    theirs = torch.optim.Muon(
        parts, lr=PEAK, weight_decay=1e-4 / PEAK, adjust_lr_fn="match_rms_adamw"
    )
    rest = [
        {"params": [other.embedding.weight], "weight_decay": 1e-4 / PEAK},
        {"params": [other.joined.bias], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(rest, lr=PEAK)
    for step in range(50):
        rate = PEAK * min(1.0, (step + 1) / 10)
        for group in [g for each in (optimizer, theirs, adamw) for g in each.param_groups]:
            group["lr"] = rate
        set_gradients(ours, step)
        for one, two in zip(ours.parameters(), other.parameters(), strict=True):
            two.grad = one.grad.clone()
        gradients = [*other.joined.weight.grad.chunk(3), other.single.weight.grad]
        for part, gradient in zip(parts, gradients, strict=True):
            part.grad = gradient
        for each in (optimizer, theirs, adamw):
            each.step()
    torch.testing.assert_close(ours.embedding.weight, other.embedding.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.joined.bias, other.joined.bias, rtol=1e-5, atol=1e-6)
    # A rounding of bfloat16 is 0.4% of an entry, which here is about a fifth of the rate.
    tolerance = {"rtol": 0, "atol": 50 * PEAK * 0.2 * 0.01}
    torch.testing.assert_close(ours.joined.weight, torch.cat(parts[:3]), **tolerance)
    torch.testing.assert_close(ours.single.weight, parts[3], **tolerance)
    moved = (ours.joined.weight - Block().joined.weight).abs().mean()
    assert moved > 5 * (ours.joined.weight - torch.cat(parts[:3])).abs().mean()


@pytest.mark.parametrize("shape", [(1, 4, 9), (3, 9, 4), (2, 8, 8)])
def test_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    matrices[0] *= 1e6
    values = torch.linalg.svdvals(orthogonalize(matrices).float())
    assert orthogonalize(matrices).shape == shape
    assert float(values.min()) > 0.4 and float(values.max()) < 1.4
    assert not orthogonalize(torch.zeros(shape)).any()


def test_of_a_model_the_matrices_inside_layers_are_taken() -> None:
    config = EncoderConfig.preset("tiny", vocab_size=300)
    model = initialize(MaskedLanguageModel(config), seed=0)
    groups = matrix_groups(parameter_groups(model, 0.1), model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(each)]: group["matrix_parts"] for group in groups for each in group["params"]}
    expected = {"attn.Wqkv": 3, "attn.Wo": 1, "mlp.Wi": 2, "mlp.Wo": 1}
    for name, parts in found.items():
        kind = ".".join(name.split(".")[-3:-1])
        assert parts == (expected[kind] if "layers" in name and "norm" not in name else 0), name
    assert found.keys() == {name for name, _ in model.named_parameters()}
    assert sum(parts > 0 for parts in found.values()) == 4 * config.num_layers


def test_other_tensors_have_adamws_step() -> None:
    ours, other = Block(), Block()
    adamw = StableAdamW(
        parameter_groups(other, 1e-4),
        peak_learning_rate=PEAK,
        betas=(0.9, 0.999),
        eps=1e-8,
        update_clipping=False,
    )
    optimizer = make(ours)
    for step in range(5):
        for module, each in ((ours, optimizer), (other, adamw)):
            set_gradients(module, step)
            each.step()
    assert torch.equal(ours.embedding.weight, other.embedding.weight)
    assert torch.equal(ours.joined.bias, other.joined.bias)
    assert not torch.equal(ours.single.weight, other.single.weight)
    assert set(optimizer.state[ours.single.weight]) == {"momentum_buffer"}


@pytest.mark.parametrize("bad", [math.nan, 1.0])
@pytest.mark.parametrize("on_device", [False, True])
def test_a_step_that_is_not_taken_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, on_device: bool, bad: float
) -> None:
    module = Block()
    optimizer = make(module)
    update = optimizer._update_group

    def step(flag: bool) -> None:
        taken = torch.tensor(flag)
        with monkeypatch.context() as patch:
            if on_device:
                patch.setattr(optimizer, "_update_group", lambda p, g, _: update(p, g, taken))
            optimizer.step(taken=None if on_device else taken)

    for number in range(3):
        set_gradients(module, number)
        step(True)
    before = copy.deepcopy([p.tolist() for p in module.parameters()])
    buffer = optimizer.state[module.single.weight]["momentum_buffer"].clone()
    for parameter in module.parameters():
        parameter.grad.mul_(bad)
    step(False)
    assert [p.tolist() for p in module.parameters()] == before
    assert torch.equal(optimizer.state[module.single.weight]["momentum_buffer"], buffer)


def test_matrices_of_one_shape_in_one_go_equal_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone, together = nn.ModuleList([Block(), Block()]), nn.ModuleList([Block(), Block()])
    one, many = make(alone), make(together)
    for step in range(3):
        set_gradients(alone, step)
        set_gradients(together, step)
        one.step()
        with monkeypatch.context() as patch:
            patch.setattr(muon, "_alike", lambda each: [list(each)])
            many.step()
    for mine, other in zip(alone.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=2e-3)


def test_a_tensor_that_changes_its_optimizer_begins_anew() -> None:
    module = Block()
    first = make(module)
    set_gradients(module, 0)
    first.step()
    second = StableAdamW(module.parameters(), peak_learning_rate=PEAK)
    second.state.update(first.state)
    second.step()
    assert set(second.state[module.single.weight]) == {"step", "exp_avg", "exp_avg_sq"}
    assert int(second.state[module.embedding.weight]["step"]) == 2
    third = make(module)
    third.state.update(second.state)
    third.step()
    assert set(third.state[module.single.weight]) == {"momentum_buffer"}


def test_muon_learns_a_batch_by_heart() -> None:
    config = EncoderConfig.preset("tiny", vocab_size=64)
    model = initialize(MaskedLanguageModel(config), seed=0)
    optimizer = make(model)
    batch = PackedBatch.from_sequences([[5, 6, 7, 8, 9, 10], [11, 12, 13]])
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(model(batch), batch.token_ids)
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_waits_for_nothing() -> None:
    module = Block().cuda()
    optimizer = make(module)
    for step in range(3):
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        taken = torch.tensor(step != 1).cuda()
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        optimizer.step(taken=taken)
        torch.cuda.set_sync_debug_mode("default")


def settings(**changes: Any) -> TrainingSettings:
    table = {"total_tokens": 10, "schedule": {"peak_learning_rate": 1e-3}, **changes}
    return parse(TrainingSettings, table, where="training")


@pytest.mark.parametrize(
    ("optimizer", "betas", "epsilon", "norm"),
    [
        ("stable-adamw", (0.9, 0.98), 1e-6, None),
        ("adamw", (0.9, 0.999), 1e-8, 1.0),
        ("muon", (0.9, 0.999), 1e-8, 1.0),
    ],
)
def test_each_optimizer_has_its_own_numbers(
    optimizer: str, betas: tuple[float, float], epsilon: float, norm: float | None
) -> None:
    own = settings(optimizer=optimizer)
    assert (own.betas, own.epsilon, own.largest_norm) == (betas, epsilon, norm)
    given = settings(optimizer=optimizer, beta2=0.95, eps=1e-5, gradient_clipping=0.0)
    assert (given.betas, given.epsilon, given.largest_norm) == ((0.9, 0.95), 1e-5, None)
    assert parse(TrainingSettings, to_mapping(given), where="training") == given


def test_files_from_before_the_key_mean_what_they_meant() -> None:
    stable, adamw = settings(update_clipping=True), settings(update_clipping=False, beta2=0.99)
    assert (stable.optimizer, stable.betas, stable.epsilon) == ("stable-adamw", (0.9, 0.98), 1e-6)
    assert stable.identity == settings(optimizer="stable-adamw").identity
    assert (adamw.optimizer, adamw.betas, adamw.largest_norm) == ("adamw", (0.9, 0.99), None)


def test_identity_has_the_names_of_before_and_tells_optimizers_apart() -> None:
    stable = settings(optimizer="stable-adamw").identity
    assert stable["update_clipping"] and "gradient_clipping" not in stable
    assert not {"optimizer", "momentum", "muon"} & stable.keys()
    others = [settings(optimizer=name).identity for name in ("adamw", "muon")]
    assert stable != others[0] != others[1] != stable
    assert settings(optimizer="muon", momentum=0.9).identity != others[1]


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_refuses_a_momentum_out_of_range(momentum: float) -> None:
    with pytest.raises(SettingsError, match=r"^momentum: got "):
        make(Block(), momentum=momentum)
