"""What is done with a model during a run: by process 0, with the whole of it, while others wait."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from modernbert.model.heads import MaskedLanguageModel
from modernbert.training import checkpoint
from modernbert.training.distributed import Group
from modernbert.training.sharding import gathered, is_sharded


@dataclass(frozen=True)
class InFirstProcess:
    """Calls something with the model in process 0; all processes must call this.

    action: what is to be done with a model, and perhaps more.
    """

    group: Group
    action: Callable[..., None]

    def __call__(self, module: nn.Module, *arguments: Any) -> None:
        """Do it, for all.

        Raises:
            ModernBertError: what the action raises.
            ProcessError: it raised in process 0, so that the others cannot go on.
        """
        model = whole_model(module, self.group)
        self.group.first(lambda: self.action(model, *arguments))


def whole_model(module: nn.Module, group: Group) -> nn.Module:
    """In process 0 the model with all of its weights, a copy of it on the host if it is sharded."""
    if not any(is_sharded(parameter) for parameter in module.parameters()):
        return module
    assert isinstance(module, MaskedLanguageModel)
    tensors = gathered(checkpoint.module_tensors(module), group)
    if not group.is_first:
        return module
    model = MaskedLanguageModel(module.config)
    model.load_state_dict(tensors)
    return model
