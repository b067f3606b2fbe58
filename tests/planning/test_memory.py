"""Memory: activations against what autograd keeps, the rest against what is allocated."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.planning.examples import machine, phase
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from modernbert.batch import PackedBatch
from modernbert.model import attention, layer
from modernbert.model.config import EncoderConfig
from modernbert.model.dropout import Dropout
from modernbert.model.encoder import Encoder
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize
from modernbert.model.native import functions as native
from modernbert.model.native.loading import has_bfloat16, library
from modernbert.planning.memory import (
    Kernels,
    activation_bytes,
    averages_bytes,
    kernels_of,
    plan_memory,
)
from modernbert.planning.phase import orthogonalizing_flops
from modernbert.planning.plan import plan_phase
from modernbert.training.muon import Muon, matrix_groups
from modernbert.training.optimizer import StableAdamW, parameter_groups

TOKENS, LENGTH = 1024, 256
CONFIG = EncoderConfig.preset(
    "tiny",
    vocab_size=512,
    hidden_size=128,
    num_heads=2,
    intermediate_size=192,
    layer_kinds=("global", "local", "local", "global"),
)


class GegluLike(torch.autograd.Function):
    """Keeps what the kernel of GeGLU keeps: both halves of each row."""

    @staticmethod
    def forward(ctx, halves: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(halves)
        return halves[:, : halves.shape[1] // 2].clone()

    @staticmethod
    def backward(ctx, *_: Tensor) -> None:  # type: ignore[no-untyped-def]
        raise NotImplementedError


class VarlenLike(torch.autograd.Function):
    """Keeps what attention over variable lengths keeps on CUDA: operands, result, sums."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        result = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, result, torch.empty(query.shape[:2]))
        return result

    @staticmethod
    def backward(ctx, *_: Tensor) -> None:  # type: ignore[no-untyped-def]
        raise NotImplementedError


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Choose the kernels of the encoder."""

    def choose(kernels: Kernels, bfloat16: bool) -> None:
        if kernels == "native":
            if library() is None or (bfloat16 and not has_bfloat16()):
                pytest.skip("needs the C kernels")
            return
        monkeypatch.setattr(native, "_supports", lambda _: False)
        if kernels == "triton":
            monkeypatch.setattr(
                attention, "attend", lambda q, k, v, *_, **__: VarlenLike.apply(q, k, v)
            )
            monkeypatch.setattr(layer, "gate", lambda halves, _: GegluLike.apply(halves))

    yield choose


def kept_bytes(encoder: Encoder, *, bfloat16: bool, dropout: bool) -> int:
    """Of all that autograd keeps in a forward, but the weights and autocast's copies of them."""
    matrices = {tuple(p.shape) for p in encoder.parameters()}
    weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        turned = tuple(tensor.shape), tuple(tensor.shape[::-1])
        if storage.data_ptr() not in weights and not matrices & set(turned):
            kept[storage.data_ptr()] = tensor
        return tensor

    drops = Dropout(0.1, keys=[(0,)], num_tokens_each=[TOKENS]) if dropout else None
    batch = PackedBatch.from_sequences([[5] * LENGTH] * (TOKENS // LENGTH))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        _result = encoder(batch, dropout=drops)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("bfloat16", [True, False])
@pytest.mark.parametrize("kernels", ["native", "blocks", "triton"])
def test_activations_are_what_autograd_keeps(
    use: object, kernels: Kernels, bfloat16: bool, dropout: bool
) -> None:
    use(kernels, bfloat16)  # type: ignore[operator]
    encoder = initialize(Encoder(CONFIG), seed=0)
    expected = activation_bytes(CONFIG, TOKENS, kernels=kernels, bfloat16=bfloat16, dropout=dropout)
    assert kept_bytes(encoder, bfloat16=bfloat16, dropout=dropout) == pytest.approx(
        expected, rel=0.002
    )


def test_recomputing_keeps_the_inputs_of_layers_and_the_insides_of_one() -> None:
    config = EncoderConfig.preset("base")
    kept, again = (
        activation_bytes(config, 1, kernels="triton", bfloat16=True, recompute=recompute)
        for recompute in (False, True)
    )
    inputs = config.hidden_size * (4 * config.num_layers + 2 * (config.num_layers - 1))
    assert inputs + kept / config.num_layers < again < inputs + 1.3 * kept / config.num_layers


def test_weights_gradients_and_optimizer_are_what_is_allocated() -> None:
    model = initialize(MaskedLanguageModel(CONFIG), seed=0)
    optimizer = StableAdamW(parameter_groups(model, 1e-5), peak_learning_rate=1e-3)
    sum(p.sum() for p in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    state = [s for each in optimizer.state.values() for s in each.values() if s.ndim]
    memory = plan_memory(phase(config=CONFIG), machine())
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert memory.weights == sum(p.nbytes for p in model.parameters())
    assert memory.gradients == sum(gradient.nbytes for gradient in gradients)
    assert memory.optimizer == sum(tensor.nbytes for tensor in state)


def test_micro_batches_decide_the_activations() -> None:
    small, large = (
        plan_memory(phase(micro_batch_tokens=tokens), machine()) for tokens in (8_192, 16_384)
    )
    assert large.activations == 2 * small.activations
    assert large.weights == small.weights
    assert small.total < large.total


def test_logits_never_exceed_their_limit() -> None:
    """In bfloat16 they take half of what they are counted as."""
    limits = [plan_memory(phase(max_logits_bytes=n << 20), machine()) for n in (64, 128, 1 << 20)]
    assert limits[1].vocabulary - limits[0].vocabulary == 32 << 20
    rows = 0.3 * 65_536
    assert limits[2].vocabulary - limits[0].vocabulary < 2 * rows * 50_368


def test_shards_are_parts_and_what_is_gathered() -> None:
    whole = plan_memory(phase(), machine(num_gpus=8))
    part = plan_memory(phase(), machine(num_gpus=8, sharded=True))
    assert (part.weights, part.optimizer) == (whole.weights / 8, whole.optimizer / 8)
    assert part.weight_copies > whole.weight_copies
    assert part.total < whole.total
    assert plan_memory(phase(), machine(sharded=True)) == plan_memory(phase(), machine())


def test_an_update_can_be_the_fullest_moment() -> None:
    """Of torch's operations, on a GPU that is too old for the optimizer's kernels."""
    large = phase(config=EncoderConfig.preset("1b"), micro_batch_tokens=128)
    assert plan_memory(large, machine()).update == 0
    memory = plan_memory(large, machine("v100"))
    lasting = memory.weights + memory.gradients + memory.optimizer + memory.program + memory.gaps
    assert memory.total == lasting + memory.update


def test_muon_keeps_one_average_of_matrices() -> None:
    """Counted as an optimizer's own state after a step, and as the products that it does."""
    model = initialize(MaskedLanguageModel(CONFIG), seed=0)
    optimizer = Muon(matrix_groups(parameter_groups(model, 0.0), model), peak_learning_rate=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    kept = sum(
        each.nbytes for state in optimizer.state.values() for each in state.values() if each.ndim
    )
    planned = phase(config=CONFIG, optimizer="muon", tokens_per_step=1000)
    assert averages_bytes(planned) == kept
    assert averages_bytes(phase(config=CONFIG)) > kept
    assert counter.get_total_flops() == orthogonalizing_flops(CONFIG)
    assert planned.optimizer_flops_per_token(3) * 1000 == 3 * orthogonalizing_flops(CONFIG)
    assert phase(config=CONFIG).optimizer_flops_per_token(3) == 0


def test_a_plan_with_muon_takes_less_memory_and_more_time() -> None:
    muon = plan_phase(phase(optimizer="muon"), machine())
    adamw = plan_phase(phase(optimizer="adamw"), machine())
    assert muon.memory.optimizer < adamw.memory.optimizer
    assert muon.checkpoint_bytes < adamw.checkpoint_bytes
    assert muon.hours > adamw.hours


def test_a_cpu_loses_memory_to_gaps() -> None:
    """By tokens, width and layers alike, whether activations are kept or not."""
    tiny, base = EncoderConfig.preset("tiny"), EncoderConfig.preset("base")

    def gaps(**changes: Any) -> int:
        return plan_memory(phase(**changes), machine("cpu")).gaps

    assert gaps(config=base, micro_batch_tokens=8_192) == 8 * 8_192 * 768 * 22
    assert gaps(config=tiny, micro_batch_tokens=4_096) == 8 * 4_096 * 256 * 6
    again = plan_memory(phase(), machine("cpu", recompute=True))
    assert again.gaps == gaps() and again.total < plan_memory(phase(), machine("cpu")).total
    assert plan_memory(phase(), machine("h100")).gaps == 0


def test_kernels_follow_the_machine() -> None:
    assert kernels_of(machine("h100"), bfloat16=True) == "triton"
    assert kernels_of(machine("v100"), bfloat16=False) == "blocks"
    assert kernels_of(machine("cpu"), bfloat16=True) == "native"
