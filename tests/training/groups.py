"""What the processes of a group do in the tests of this folder; see `tests.processes`."""

import os
import signal
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modernbert.errors import RunError
from modernbert.training import checkpoint, muon
from modernbert.training.computation import ShardedComputation, recompute
from modernbert.training.distributed import Group, joined
from modernbert.training.muon import Muon, matrix_groups
from modernbert.training.optimizer import StableAdamW
from modernbert.training.tensors import fill, local, whole

_WIDTH = 6


def talk() -> dict[str, Any]:
    """Every way in which the processes of a group speak with each other."""
    with joined(20) as group:
        tensors = [
            torch.full((3, 2), float(group.rank + 1)),
            torch.full((2, 3), 10.0 * (group.rank + 1)).T,  # not contiguous
            torch.tensor(group.rank + 0.5, dtype=torch.float64),
            torch.ones(1) * group.rank,
        ]
        group.sum(tensors)
        big = [torch.full((9_000_000,), 1.0 + group.rank), torch.ones(5)]  # two pieces
        group.sum(big)
        spread = torch.full((2, 2), float(group.rank)).T
        group.broadcast(spread)
        return {
            "place": [group.rank, group.size, group.is_first, str(group.device)],
            "rows": group.gather([group.rank, 0.25]),
            "sums": [tensor.unique().tolist() for tensor in (*tensors, *big)],
            "spread": spread.unique().tolist(),
            "first": group.first(lambda: {"rank": group.rank, "text": "é"}),
            "part": list(group.part(5)),
            "agreed": group.agree("recipe", "same"),
        }


def fail_in_the_first() -> None:
    def fail() -> None:
        raise RunError("the folder is taken")

    with joined(20) as group:
        group.first(fail)


def disagree() -> None:
    with joined(20) as group:
        group.agree("recipe", "one" if group.rank == 0 else "another")


def lose(who: int, how: str, timeout_seconds: float) -> None:
    """Process `who` is killed, stopped, or leaves with an error, and the others wait for it."""
    with joined(timeout_seconds) as group:
        group.gather([1.0])
        if group.rank == who:
            _go(how)
        _sum_something(group)


def _go(how: str) -> None:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "hangs":
        time.sleep(4)
        os._exit(9)
    else:
        raise RunError("a shard is torn")


def _sum_something(group: Group) -> None:
    group.sum([torch.ones(3)])


class Residual(nn.Module):
    """A layer of the module below."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(_WIDTH, _WIDTH)
        self.matrices = {"dense": 2}
        self.num_forwards = 0

    def forward(self, hidden: Tensor) -> Tensor:
        self.num_forwards += 1
        changed: Tensor = hidden + torch.tanh(self.dense(hidden))
        return changed


class Stack(nn.Module):
    """A module with layers, and an embedding that is used once more outside its forward."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, _WIDTH)  # 11 rows on 2 or 4 processes: uneven shards
        self.layers = nn.ModuleList(Residual() for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(11))

    def hidden(self, token_ids: Tensor) -> Tensor:
        hidden: Tensor = self.embedding(token_ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden

    def loss(self, token_ids: Tensor) -> Tensor:
        logits = self.hidden(token_ids) @ self.embedding.weight.T + self.bias
        return nn.functional.cross_entropy(logits, (token_ids * 3 + 1) % 11, reduction="sum")


def optimizer_of(module: nn.Module, name: str) -> StableAdamW:
    """An optimizer of a module by its name in a recipe."""
    if name == "muon":
        groups = matrix_groups([{"params": list(module.parameters())}], module)
        return Muon(groups, peak_learning_rate=0.1, weight_decay=0.01)
    return StableAdamW(module.parameters(), peak_learning_rate=0.5, weight_decay=0.01)


def in_float32() -> None:
    """Let Muon compute in float32 in this process: then the order of sums makes no difference."""
    muon.compute_dtype = lambda *_: torch.float32


def update_in_shards(recomputed: bool, optimizer_name: str) -> dict[str, Any]:
    """Three steps of a sharded module, with an evaluation before each; all of its tensors."""
    in_float32()
    with joined(20) as group:
        module = Stack()
        if recomputed:
            for layer in module.layers:
                recompute(layer)
        computation = ShardedComputation(module, list(module.layers), group)
        optimizer = optimizer_of(module, optimizer_name)
        norms = []
        for step in range(3):
            with torch.no_grad():
                computation.run(lambda: [module.hidden(torch.arange(4)) for _ in range(2)])
            for index in range(2):
                computation.before_backward(is_last=index == 1)
                token_ids = micro_batch(step, group.rank, index)
                computation.run(lambda ids=token_ids: module.loss(ids)).backward()
            norms.append(float(computation.reduce(module, torch.zeros(1))))
            optimizer.step()
            optimizer.zero_grad()
        tensors = {
            **checkpoint.module_tensors(module),
            **checkpoint.optimizer_tensors(module, optimizer),
        }
        kept = sum(local(p).numel() for p in module.parameters())
        return {
            "norms": norms,
            "kept": kept,
            "forwards": module.layers[0].num_forwards,
            "tensors": {name: whole(each.detach()).tolist() for name, each in tensors.items()},
        }


def micro_batch(step: int, rank: int, index: int) -> Tensor:
    """(5,) int64. What a process computes with."""
    return torch.from_numpy(np.random.default_rng([step, rank, index]).integers(0, 11, 5))


def fill_shards() -> dict[str, Any]:
    """Values that process 0 alone has, in a sharded module and in a plain tensor."""
    with joined(20) as group:
        module = Stack()
        ShardedComputation(module, list(module.layers), group)
        for name, parameter in module.named_parameters():
            values = torch.arange(parameter.numel()).view(parameter.shape).float()
            with torch.no_grad():
                fill(parameter, values + len(name) if group.is_first else None, group)
        plain = torch.zeros(3, 2).T
        fill(plain, torch.arange(6.0).view(2, 3) if group.is_first else None, group)
        parameters = {name: whole(p.detach()).tolist() for name, p in module.named_parameters()}
        return {"parameters": parameters, "plain": plain.tolist()}
