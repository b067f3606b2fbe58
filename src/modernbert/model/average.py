"""One model whose weights are the mean of several' (P appendix "Final Checkpoints").

It helps where the models are late states of one training: near each other, on the same slope.
"""

from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor

from modernbert.errors import ConfigError, InputError
from modernbert.model.pretrained import SavedModel

M = TypeVar("M", bound=SavedModel)


@torch.no_grad()
def average(models: Iterable[tuple[M, float]]) -> M:
    """The weighted mean of some models, each with its weight; they are asked for one by one.

    Sums are float64, so that the order leaves no trace. The result is the first model, changed.

    Raises:
        InputError: no model, or a weight that is not above 0.
        ConfigError: two models whose numbers differ.
    """
    first: M | None = None
    sums: dict[str, Tensor] = {}
    total = 0.0
    for model, weight in models:
        if not 0 < weight < float("inf"):
            raise InputError(f"weight: got {weight}, expected a number above 0")
        if first is None:
            first = model
            sums = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in _named(first)}
        _check_alike(first, model)
        for name, parameter in _named(model):
            sums[name].add_(parameter, alpha=weight)
        total += weight
    if first is None:
        raise InputError("no models: an average needs at least one")
    for name, parameter in _named(first):
        parameter.copy_(sums[name] / total)
    return first


def _named(model: SavedModel) -> Iterable[tuple[str, Tensor]]:
    return model.named_parameters()


def _check_alike(first: SavedModel, other: SavedModel) -> None:
    for name, value in vars(first.config).items():
        if (got := getattr(other.config, name)) != value:
            raise ConfigError(
                f"{name} is {value} in one model and {got} in another; "
                "only states of one model can be averaged"
            )
