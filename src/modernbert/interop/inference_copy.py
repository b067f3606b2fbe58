"""Packed copies of a live model's weights, which the C kernels compute with when nobody trains.

They are made at the first call that needs no gradients, in evaluation mode and on a CPU that has
the kernels, and take as much memory as the layers again. A copy is used as long as the model's
weights are what they were, and dropped by the next call that trains.
"""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from modernbert.batch import PackedBatch
from modernbert.interop.their_layers import encoder_config, is_exact_gelu, is_watched
from modernbert.model.encoder import Encoder
from modernbert.model.precision import choose_precision

_SAMPLES = 16  # entries of each parameter that are compared at each call
_INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
_PLAIN = (nn.Linear, nn.LayerNorm, nn.Embedding)


def hidden_from_copy(model: Any, batch: PackedBatch) -> Tensor | None:
    """(total_tokens, hidden_size) by the C kernels, in the model's type; None where they cannot."""
    weight: Tensor = model.embeddings.tok_embeddings.weight
    if model.training or torch.is_grad_enabled() or weight.device.type != "cpu":
        forget(model)
        return None
    if torch.is_autocast_enabled("cpu"):
        return None
    copy = _COPIES.get(model)
    if copy is None or not copy.is_current():
        copy = _COPIES[model] = _Copy(model)
    if copy.encoder is None or not _are_ids(batch.token_ids, copy.encoder.config.vocab_size):
        return None
    hidden: Tensor = copy.encoder(batch)
    return hidden.to(weight.dtype)


def forget(model: nn.Module) -> None:
    """Drop the copy of a model's weights, if there is one."""
    _COPIES.pop(model, None)


class _Copy:
    """An encoder with packed weights, and what the model was like when they were packed."""

    def __init__(self, model: Any) -> None:
        # Not the model itself, which would then live for ever.
        self._parts = list(model.modules())[1:]
        # Where each part and parameter hangs, so that a replaced one is noticed.
        self._places = [
            (held, name, value)
            for part in model.modules()
            for held in (part._modules, part._parameters)
            for name, value in held.items()
        ]
        self._parameters = list(model.parameters())
        gelu = all(is_exact_gelu(layer.mlp.act) for layer in model.layers)
        self.encoder = self._packed(model) if gelu and self._are_plain() else None
        self._stamps = self._stamps_now()
        # Views of live memory: optimizers that are fused, and writes through `.data`, leave the
        # version of a tensor as it was.
        self._views = [] if self.encoder is None else [_view(p) for p in self._parameters]
        self._samples = self._samples_now()

    def is_current(self) -> bool:
        """Whether the model still has the weights, and only the parts, that it had."""
        return (
            all(held.get(name) is value for held, name, value in self._places)
            and self._stamps == self._stamps_now()
            and np.array_equal(self._samples, self._samples_now())
            and (self.encoder is None or not self._has_hooks())
        )

    def _are_plain(self) -> bool:
        """Whether the parameters are used as the kernels use them, and can be watched."""
        dtypes = {parameter.dtype for parameter in self._parameters}
        return (
            len(dtypes) == 1
            and dtypes <= _INTEGERS.keys()
            and all(p.is_contiguous() and not p.is_inference() for p in self._parameters)
            and all(type(part) in _PLAIN for part in self._parts if part._parameters)
            and not self._has_hooks()
        )

    def _has_hooks(self) -> bool:
        """Whether somebody waits for a call of a part, or has put another in its place."""
        return any(
            "forward" in vars(part)
            or ((part._forward_hooks or part._forward_pre_hooks) and is_watched(part))
            for part in self._parts
        )

    def _packed(self, model: Any) -> Encoder | None:
        config = encoder_config(model)
        is_half = self._parameters[0].dtype is torch.bfloat16
        precision, can_pack = choose_precision(
            config, "bfloat16" if is_half else "float32", torch.device("cpu")
        )
        with torch.device("meta"):
            encoder = Encoder(config)
        weights = {name: tensor.float() for name, tensor in model.state_dict().items()}
        if not can_pack or weights.keys() != encoder.state_dict().keys():
            return None
        encoder.load_state_dict(weights, assign=True)
        return encoder.for_inference(precision)

    def _stamps_now(self) -> list[tuple[int, int]]:
        return [(-1 if p.is_inference() else p._version, p.data_ptr()) for p in self._parameters]

    def _samples_now(self) -> np.ndarray:
        return np.concatenate(self._views) if self._views else np.zeros(0)


def _view(parameter: Tensor) -> np.ndarray:
    """Some entries of a parameter, as whole numbers that share its memory."""
    flat = parameter.detach().view(-1).view(_INTEGERS[parameter.dtype])
    view: np.ndarray = flat[:: max(1, len(flat) // _SAMPLES)].numpy()
    return view


def _are_ids(token_ids: Tensor, vocab_size: int) -> bool:
    """If not, transformers' own look-up says what is wrong."""
    low, high = token_ids.aminmax()
    return int(low) >= 0 and int(high) < vocab_size


_COPIES: WeakKeyDictionary[nn.Module, _Copy] = WeakKeyDictionary()
