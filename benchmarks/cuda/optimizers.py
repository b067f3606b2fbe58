"""Section `optimizer`: steps of StableAdamW by its kernels and by torch, and of Muon."""

import copy
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from benchmarks.cuda.bench import Bench, Figures, Rows
from modernbert.devices import has_triton
from modernbert.training.muon import Muon, matrix_groups
from modernbert.training.optimizer import StableAdamW, parameter_groups

_PASSES = {"torch": 31, "kernels": 9}  # over tensors as large as the weights, read or written
_COMPARED_STEPS = 10
_NEAR = 1e-5


class ByTorch(StableAdamW):
    """As it was before the kernels."""

    def _update_on_gpu(self, *_: object) -> bool:
        return False


def optimizer(bench: Bench) -> Rows:
    """Milliseconds of a step, how fast memory is read and written, and how equal both ways are."""
    rows = bench.rows()
    for size in bench.sizes:
        model = bench.model(size, compiled=False)
        ways = {"torch": ByTorch, "kernels": StableAdamW}
        if not has_triton(bench.device):
            ways.pop("kernels")
        after: dict[str, nn.Module] = {}
        for name, way in ways.items():
            after[name] = copy.deepcopy(model)
            made = way(parameter_groups(after[name], 1e-5), peak_learning_rate=1e-4)
            rows[f"{size} {name}"] = _step(bench, after[name], made, _PASSES[name])
        if "kernels" in after:
            rows[f"{size} kernels"] |= _equal(*(list(each.parameters()) for each in after.values()))
        del after
        groups = matrix_groups(parameter_groups(model, 1e-5), model)
        rows[f"{size} Muon"] = _step(bench, model, Muon(groups, peak_learning_rate=1e-4), None)
    return rows


def _step(bench: Bench, model: nn.Module, made: StableAdamW, num_passes: int | None) -> Figures:
    generator = torch.Generator(bench.device).manual_seed(0)
    taken = torch.ones((), dtype=torch.bool, device=bench.device)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter).normal_(0, 1e-3, generator=generator)
    for _ in range(_COMPARED_STEPS):  # so many, before the timing takes more
        made.step(taken=taken)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    seconds = bench.time(partial(made.step, taken=taken))
    for parameter, value in zip(model.parameters(), before, strict=True):
        parameter.data = value
    figures: Figures = {"ms": 1e3 * seconds}
    if num_passes is not None:
        num_bytes = 4 * sum(value.numel() for value in before)
        figures["GB/s read and written"] = num_passes * num_bytes / seconds / 1e9
    return figures


def _equal(expected: Sequence[nn.Parameter], found: Sequence[nn.Parameter]) -> Figures:
    """How far weights are apart after a few steps, relative to the largest of a tensor."""
    differences = [
        float((one - other).detach().abs().max() / other.detach().abs().max())
        for one, other in zip(found, expected, strict=True)
    ]
    return {"difference": max(differences), "ok": "yes" if max(differences) < _NEAR else "NO"}
