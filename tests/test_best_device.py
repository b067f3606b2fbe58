"""Which device is taken; and the path of Apple's GPUs, with torch's blocks in float32, on a CPU."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from tests.model.conftest import kernels
from tests.model.examples import largest_difference, ragged_batch, small_config, with_random_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modernbert.batch import PackedBatch
from modernbert.data.collate import MaskedBatch
from modernbert.devices import DEVICE_VARIABLE, best_device, to_host, widest_dtype
from modernbert.errors import SettingsError
from modernbert.inference.batching import launch
from modernbert.model.choices import AttentionChoice, choose_precision
from modernbert.model.dropout import Dropout
from modernbert.model.encoder import Encoder
from modernbert.model.heads import MaskedLanguageModel
from modernbert.tasks.pretraining.pretrain import masked_token_loss
from modernbert.training.computation import autocast, compute_dtype
from modernbert.training.muon import Muon, matrix_groups
from modernbert.training.optimizer import StableAdamW, clip_gradients, parameter_groups

MPS = torch.device("mps")


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str]], None]:
    """Let there be these accelerators."""
    monkeypatch.delenv(DEVICE_VARIABLE, raising=False)

    def put(names: Sequence[str]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in names)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in names)

    return put


@pytest.mark.parametrize(
    ("names", "best"),
    [((), "cpu"), (("mps",), "mps"), (("cuda",), "cuda"), (("cuda", "mps"), "cuda")],
)
def test_the_best_that_is_there(
    names: Sequence[str], best: str, there: Callable[[Sequence[str]], None]
) -> None:
    there(names)
    assert best_device().type == best


def test_the_variable_names_another(
    there: Callable[[Sequence[str]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    there(["mps"])
    monkeypatch.setenv(DEVICE_VARIABLE, "CPU")
    assert best_device().type == "cpu"
    for value, message in (("cuda", "there is none here"), ("tpu", "expected cuda, mps or cpu")):
        monkeypatch.setenv(DEVICE_VARIABLE, value)
        with pytest.raises(SettingsError, match=message):
            best_device()


def test_apples_gpus_compute_in_float32() -> None:
    assert choose_precision(small_config(), "auto", MPS) == ("float32", False)
    assert compute_dtype(MPS, "auto") is torch.float32
    assert widest_dtype(MPS) is torch.float32 and widest_dtype(torch.device("cpu")) is torch.float64
    with autocast(MPS, "auto"):
        assert not torch.is_autocast_enabled("mps")


class NoDoubles(TorchDispatchMode):
    """Fails where an operation gives float64, which Apple's GPUs do not have."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            is_wide = isinstance(each, torch.Tensor) and each.dtype is torch.float64
            assert not is_wide, f"{func} gives float64"
        return out


@pytest.mark.parametrize("is_muon", [False, True])
def test_steps_of_training_without_float64(is_muon: bool) -> None:
    """By torch's blocks and the updates of an accelerator, and as a CPU takes them."""
    with kernels("torch"):
        loss = _train(is_muon, attention="blocks", guard=NoDoubles())
    assert loss == pytest.approx(_train(is_muon, attention="auto", guard=nullcontext()), rel=1e-4)


def _train(
    is_muon: bool, *, attention: AttentionChoice, guard: AbstractContextManager[object]
) -> float:
    """The loss of the last of three steps."""
    model = with_random_weights(MaskedLanguageModel(small_config()))
    model.encoder.attention = attention
    groups = parameter_groups(model, 0.01)
    optimizer = StableAdamW(groups, peak_learning_rate=1e-3)
    if is_muon:
        optimizer = Muon(matrix_groups(groups, model), peak_learning_rate=1e-3)
    batch = ragged_batch([30, 7, 5])
    rows = torch.arange(0, 42, 3)
    labels = batch.token_ids[rows]
    masked = MaskedBatch(
        batch=batch, masked_indices=rows, labels=labels, bin_ids=(0,), bin_tokens_each=(42,)
    )
    for step in range(3):
        with guard:
            dropout = Dropout(0.1, keys=[(0, step, 0)], num_tokens_each=[42])
            loss = masked_token_loss(model, masked, dropout) / masked.num_masked
            loss.backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            clip_gradients(model, torch.nn.utils.get_total_norm(gradients), 1.0)
            with torch.no_grad():
                _update(optimizer)
            optimizer.zero_grad()
    return float(loss.detach())


def _update(optimizer: StableAdamW) -> None:
    """As on a device, which itself decides whether a step is taken."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer._advance(parameter, group)
        optimizer._update_group(group["params"], group, torch.tensor(True))


def test_vectors_without_float64() -> None:
    ready, plain = (with_random_weights(Encoder(small_config())) for _ in range(2))
    sequences = [[5, 6, 7], [8] * 40, [9]]
    with kernels("torch"):
        ready.for_inference("float32")
        with NoDoubles():
            launched = launch(
                lambda batch: batch.split(to_host(ready(batch))), sequences, torch.device("cpu")
            )
    for found, sequence in zip(launched.wait(), sequences, strict=True):
        assert largest_difference(found, plain(PackedBatch.from_sequences([sequence]))) < 1e-5
