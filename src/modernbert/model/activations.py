"""The activations of gated MLPs and heads, by their names here and in config.json."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor
from torch.nn import functional

from modernbert.model.config import Activation


def relu_squared(values: Tensor) -> Tensor:
    """The square of what is positive, and 0 elsewhere."""
    return functional.relu(values).square()


ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
    "relu": functional.relu,
    "relu2": relu_squared,
}
