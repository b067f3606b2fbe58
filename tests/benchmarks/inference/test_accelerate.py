"""The benchmark's batches, and that nothing is timed where outputs differ."""

from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.inference.accelerate import measure, padded
from benchmarks.workloads import Workload

OPTIONS = Namespace(rounds=9, seconds=0.01, cpu_time=False)
WORKLOAD = Workload(name="three", description="three lengths", lengths=(3, 1, 5))


class Model:
    """One number a token, off by a constant."""

    def __init__(self, offset: float) -> None:
        self.weight = torch.tensor(float(offset), requires_grad=True)

    def zero_grad(self) -> None:
        self.weight.grad = None

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:  # noqa: ARG002
        return SimpleNamespace(last_hidden_state=input_ids[..., None] + self.weight)


def test_batches_are_padded_on_the_right() -> None:
    batch = padded(WORKLOAD)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1] * 5]
    assert not batch["input_ids"][batch["attention_mask"] == 0].any()
    assert batch["input_ids"][batch["attention_mask"] == 1].all()


def test_equal_models_are_timed() -> None:
    row = measure({"transformers": Model(0), "accelerated": Model(0)}, WORKLOAD, OPTIONS)
    assert row["largest_difference"] == 0 and (row["real_tokens"], row["padded_tokens"]) == (9, 15)
    assert row["forward"]["speedup"] > 0 and row["forward_and_backward"]["speedup"] > 0


def test_models_that_differ_are_not() -> None:
    row = measure({"transformers": Model(0), "accelerated": Model(0.1)}, WORKLOAD, OPTIONS)
    assert "failed" in row and "forward" not in row
