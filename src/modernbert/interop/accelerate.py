"""`accelerate` and `restore`: a live model of transformers computes unpadded, and as before.

Nothing of the model is copied or moved: the instances of a few classes of transformers get
subclasses of these, whose `forward` drops the padding. Parameters, names, hooks and settings stay
the model's own, so optimizers, trainers and `save_pretrained` go on working.
"""

import importlib.util
from typing import TYPE_CHECKING, TypeVar

from torch import nn

from modernbert.errors import ConfigError, InputError, ModernBertError

if TYPE_CHECKING:
    from types import ModuleType

M = TypeVar("M", bound=nn.Module)

_MIN_TRANSFORMERS = 5


def accelerate(model: M) -> M:
    """Make every ModernBERT of transformers within a model compute without padding, in place.

    model: any `ModernBert...` class of transformers, or what holds one, such as a
        SentenceTransformer or a CrossEncoder.

    Outputs at real tokens stay as they were, up to rounding; at padding they are zeros. A call
    that asks for what the kernels cannot give, such as attention probabilities, runs as it did
    before. Accelerating twice changes nothing.

    Returns the same object.

    Raises:
        InputError: no ModernBERT of transformers in it.
        ConfigError: one with parts that the kernels do not compute, or a transformers too old.
    """
    packed = _packed_models()
    parts = [part for part in model.modules() if packed.original_of(part) is not None]
    encoders = [part for part in parts if packed.is_encoder(part)]
    if not encoders:
        raise InputError(
            f"accelerate: got a {type(model).__name__} with no ModernBERT of transformers in it; "
            "expected one, or a SentenceTransformer or CrossEncoder around one"
        )
    for encoder in encoders:
        try:
            packed.encoder_config(encoder)
        except ModernBertError as error:
            raise ConfigError(f"accelerate: {error}") from None
    for part in parts:
        packed.swap(part)
    return model


def restore(model: M) -> M:
    """Undo `accelerate`: the classes are transformers' again, and nothing else is left behind.

    Returns the same object.

    Raises:
        InputError: a model that is not accelerated.
    """
    packed = _packed_models()
    parts = [part for part in model.modules() if packed.is_accelerated(part)]
    if not parts:
        raise InputError(f"restore: this {type(model).__name__} is not accelerated")
    for part in parts:
        packed.swap_back(part)
    return model


def _packed_models() -> "ModuleType":
    if importlib.util.find_spec("transformers") is None:
        raise ConfigError("accelerate: transformers is not installed; pip install transformers")
    import transformers

    if int(transformers.__version__.split(".")[0]) < _MIN_TRANSFORMERS:
        raise ConfigError(
            f"accelerate: transformers {transformers.__version__} is too old; "
            f"pip install 'transformers>={_MIN_TRANSFORMERS}'"
        )
    from modernbert.interop import packed_models

    return packed_models
