"""Modules in shards: the same numbers as a whole module, and only a part of it in each process."""

from typing import Any

import pytest
import torch
from tests.processes import results, run_together
from tests.training import groups
from torch import nn

from modernbert.training import checkpoint, muon
from modernbert.training.computation import Computation, recompute
from modernbert.training.tensors import is_sharded, local, whole


def reference(size: int, optimizer_name: str) -> dict[str, Any]:
    """What the processes do together, done by one."""
    module = groups.Stack()
    optimizer = groups.optimizer_of(module, optimizer_name)
    norms = []
    for step in range(3):
        for rank in range(size):
            for index in range(2):
                module.loss(groups.micro_batch(step, rank, index)).backward()
        norms.append(float(nn.utils.get_total_norm([p.grad for p in module.parameters()])))
        optimizer.step()
        optimizer.zero_grad()
    tensors = {
        **checkpoint.module_tensors(module),
        **checkpoint.optimizer_tensors(module, optimizer),
    }
    return {"norms": norms, "tensors": {n: t.detach().tolist() for n, t in tensors.items()}}


@pytest.mark.parametrize(
    ("size", "recomputed", "optimizer"),
    [
        (2, False, "stable-adamw"),
        (2, True, "stable-adamw"),
        (4, False, "stable-adamw"),
        (2, False, "muon"),
        (4, False, "muon"),
    ],
)
def test_steps_in_shards_equal_those_of_one_process(
    size: int, recomputed: bool, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "compute_dtype", lambda *_: torch.float32)
    expected = reference(size, optimizer)
    answers = results(run_together(groups.update_in_shards, size, recomputed, optimizer))
    for answer in answers:
        assert answer["norms"] == pytest.approx(expected["norms"], rel=1e-5)
        assert answer["tensors"].keys() == expected["tensors"].keys()
        for name, values in expected["tensors"].items():
            torch.testing.assert_close(
                torch.tensor(answer["tensors"][name]), torch.tensor(values), rtol=1e-5, atol=2e-5
            )
        # Two evaluations and two micro-batches in each of three steps; a forward once more in
        # each backward where nothing is kept.
        assert answer["forwards"] == 3 * (2 + 2 + (2 if recomputed else 0))
    total = sum(p.numel() for p in groups.Stack().parameters())
    assert sum(answer["kept"] for answer in answers) == total
    assert max(answer["kept"] for answer in answers) < total / size * 1.3


def test_what_the_first_has_fills_the_shards_of_all() -> None:
    for answer in results(run_together(groups.fill_shards, 2)):
        for name, values in answer["parameters"].items():
            flat = torch.tensor(values).flatten()
            assert torch.equal(flat, torch.arange(len(flat)).float() + len(name))
        assert answer["plain"] == [[0, 1, 2], [3, 4, 5]]


def test_tensors_of_one_process_are_whole() -> None:
    tensor = torch.ones(3)
    assert not is_sharded(tensor)
    assert local(tensor) is tensor and whole(tensor) is tensor
    assert Computation().run(lambda: 5) == 5


def test_recomputing_changes_no_gradient() -> None:
    gradients = []
    for again in (False, True):
        module = groups.Stack()
        if again:
            for layer in module.layers:
                recompute(layer)
        module.loss(torch.arange(5)).backward()
        gradients.append([p.grad for p in module.parameters()])
        assert module.layers[0].num_forwards == 1 + again
        assert set(groups.Stack().state_dict()) == set(module.state_dict())
    for kept, recomputed in zip(*gradients, strict=True):
        assert torch.equal(kept, recomputed)
