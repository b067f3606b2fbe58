"""`accelerate` and `restore`: make a transformers model compute without padding, and undo it.

Nothing of the model is copied or moved. Instances of a few transformers classes change their class
to a subclass whose `forward` drops the padding. Parameters, names, hooks and settings stay the
model's own, so optimizers, trainers and `save_pretrained` keep working.
"""

import importlib.util
import warnings
from typing import TYPE_CHECKING, TypeVar

from torch import nn

from modernbert.errors import ConfigError, InputError, ModernBertError, ModernBertWarning

if TYPE_CHECKING:
    from types import ModuleType

M = TypeVar("M", bound=nn.Module)

_MIN_TRANSFORMERS = (5, 2)  # from here on the last hidden states are those behind the last norm


def accelerate(model: M) -> M:
    """Make every transformers ModernBERT within a model compute without padding, in place.

    Outputs at real tokens stay the same up to rounding; at padding they are zeros. A call that
    asks for something the kernels cannot compute, such as attention probabilities, runs in
    transformers. Accelerating a model twice changes nothing.

    Args:
        model: Any `ModernBert...` model of transformers, or a model that contains one, such as a
            SentenceTransformer or a CrossEncoder.

    Returns:
        The same object.

    Raises:
        InputError: The model contains no ModernBERT of transformers.
        ConfigError: A part of it is not supported by the kernels, or transformers is too old.
    """
    packed = _packed_models()
    modules = model.modules() if isinstance(model, nn.Module) else ()
    parts = [part for part in modules if packed.original_of(part) is not None]
    encoders = [part for part in parts if packed.is_encoder(part)]
    if not encoders:
        raise InputError(
            f"accelerate: got a {type(model).__name__}, which contains no ModernBERT of "
            "transformers; expected one, or a SentenceTransformer or CrossEncoder that has one"
        )
    for encoder in encoders:
        if (part := packed.unknown_part(encoder)) is not None:
            said = f"accelerate: {part} is not transformers' own; its model is computed as before"
            warnings.warn(said, ModernBertWarning, stacklevel=2)
            continue
        try:
            packed.encoder_config(encoder)
        except ModernBertError as error:
            raise ConfigError(f"accelerate: {error}") from None
    for part in parts:
        packed.swap(part)
    return model


def restore(model: M) -> M:
    """Undo `accelerate`: the model gets its original classes back, and nothing else remains.

    Args:
        model: An accelerated model.

    Returns:
        The same object.

    Raises:
        InputError: The model is not accelerated.
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

    if tuple(map(int, transformers.__version__.split(".")[:2])) < _MIN_TRANSFORMERS:
        raise ConfigError(
            f"accelerate: transformers {transformers.__version__} is too old; "
            f"pip install 'transformers>={'.'.join(map(str, _MIN_TRANSFORMERS))}'"
        )
    from modernbert.interop import packed_models

    return packed_models
