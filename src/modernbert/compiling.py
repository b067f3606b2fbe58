"""A layer's forward for torch's compiler, and the one option it needs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# Graphs of one function, for all layers of a process together: kinds of layers, with gradients and
# without, in one shape and in several, of each model. The compiler's own limit of 8 is soon
# passed, and from then on it leaves layers uncompiled.
_MOST_GRAPHS = 128


def compile_layer(
    layer: nn.Module,
    backend: str | Callable[..., Any] = "inductor",
    *,
    dynamic: bool | None = None,
) -> None:
    """Compile the forward of one of many layers; those of a kind share their code.

    backend, dynamic: those of `torch.compile`.
    """
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, _MOST_GRAPHS)
    layer.forward = torch.compile(layer.forward, backend=backend, dynamic=dynamic)
