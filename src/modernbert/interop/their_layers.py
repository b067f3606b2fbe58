"""The layers of a transformers ModernBERT over a flat batch, and packed copies of their weights.

The model's own modules compute all products, norms and dropout, so adapters and replaced
parameters have their effect. Only attention and GeGLU are ours.

A copy is made by the first call in evaluation mode that needs no gradients, on a CPU for which
there are kernels. It takes as much memory as the layers themselves. It is used as long as the
model's weights stay the same, and dropped by the next call that trains.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from transformers.models.modernbert import modeling_modernbert as theirs

from modernbert.batch import PackedBatch
from modernbert.interop.their_parts import encoder_config, is_exact_gelu, is_watched
from modernbert.model.attention import attend_rotated
from modernbert.model.encoder import Encoder
from modernbert.model.layer import gate
from modernbert.model.layout import Layout
from modernbert.model.precision import choose_precision
from modernbert.model.rope import RotaryTable, rotary_table


def hidden_states(
    model: Any, batch: PackedBatch, embeds: Tensor | None, *, keep_all: bool
) -> list[Tensor]:
    """Compute the hidden states of a flat batch.

    Args:
        model: An encoder of transformers.
        batch: The sequences, packed one after another.
        embeds: (total_tokens, hidden_size), used in place of the token embeddings.
        keep_all: Whether to return every hidden state and not only the last.

    Returns:
        (total_tokens, hidden_size) each. All of them are, as in transformers, the embeddings, the
        output of each layer but the last, and the output of the final norm.
    """
    config = encoder_config(model)
    layout = Layout(batch, config.window)
    tables = {
        kind: rotary_table(
            batch.position_ids, config.head_size, config.theta(kind), config.scaling(kind)
        )
        for kind in set(config.layer_kinds)
    }
    if embeds is None:
        hidden = model.embeddings(input_ids=batch.token_ids)
    else:
        hidden = model.embeddings(inputs_embeds=embeds)
    states = []
    for layer, kind in zip(model.layers, config.layer_kinds, strict=True):
        if keep_all:
            states.append(hidden)
        window = config.window if kind == "local" else None
        run = partial(_run_layer, layer, table=tables[kind], layout=layout, window=window)
        if layer.gradient_checkpointing and layer.training:
            hidden = layer._gradient_checkpointing_func(run, hidden)
        else:
            hidden = run(hidden)
    return [*states, model.final_norm(hidden)]


def _run_layer(
    layer: Any, hidden: Tensor, *, table: RotaryTable, layout: Layout, window: int | None
) -> Tensor:
    """Run one layer: (total_tokens, hidden_size) to the same shape."""
    attention, mlp = layer.attn, layer.mlp
    qkv = attention.Wqkv(layer.attn_norm(hidden))
    num_heads = qkv.shape[-1] // (3 * attention.head_dim)
    attended = attend_rotated(qkv, table, layout, num_heads=num_heads, window=window)
    hidden = hidden + attention.out_drop(attention.Wo(attended))
    halves = mlp.Wi(layer.mlp_norm(hidden))
    changed: Tensor = hidden + mlp.Wo(mlp.drop(_gated(mlp.act, halves)))
    return changed


def _gated(activation: Any, halves: Tensor) -> Tensor:
    """Apply the layer's activation and gate: (total_tokens, 2 x width) to (total_tokens, width)."""
    if is_exact_gelu(activation):
        return gate(halves)
    activated, factors = halves.chunk(2, dim=-1)
    gated: Tensor = activation(activated) * factors
    return gated


_SAMPLES = 16  # entries of each parameter that are compared at each call
_INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
# Modules that a packed copy computes as they do. An activation is looked at by itself.
_KNOWN = {
    theirs.ModernBertEmbeddings,
    theirs.ModernBertEncoderLayer,
    theirs.ModernBertAttention,
    theirs.ModernBertMLP,
    theirs.ModernBertRotaryEmbedding,
    nn.ModuleList,
    nn.Linear,
    nn.LayerNorm,
    nn.Embedding,
    nn.Dropout,
    nn.Identity,
}


def hidden_from_copy(model: Any, batch: PackedBatch) -> Tensor | None:
    """Compute the hidden states with the C kernels, if they can.

    Args:
        model: An encoder of transformers.
        batch: The sequences, packed one after another.

    Returns:
        (total_tokens, hidden_size) in the model's dtype, or None if the kernels do not apply.
    """
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
    """An encoder with packed weights, and the state of the model when they were packed."""

    def __init__(self, model: Any) -> None:
        # Without the model itself, which would otherwise never be freed.
        self._parts = list(model.modules())[1:]
        # The owner of each part and parameter, so that a replacement is noticed.
        self._places = [
            (held, name, value)
            for part in model.modules()
            for held in (part._modules, part._parameters)
            for name, value in held.items()
        ]
        self._parameters = list(model.parameters())
        self.encoder = self._packed(model) if self._are_plain(model) else None
        self._stamps = self._stamps_now()
        # Views of live memory, because fused optimizers and writes through `.data` do not change
        # the version of a tensor.
        self._views = [] if self.encoder is None else [_view(p) for p in self._parameters]
        self._samples = self._samples_now()

    def is_current(self) -> bool:
        """Return whether the model still has the same weights and parts."""
        return (
            all(held.get(name) is value for held, name, value in self._places)
            and self._stamps == self._stamps_now()
            and np.array_equal(self._samples, self._samples_now())
            and (self.encoder is None or not self._is_changed())
        )

    def _are_plain(self, model: Any) -> bool:
        """Return whether the kernels can use the parts and weights, and changes are noticed."""
        dtypes = {parameter.dtype for parameter in self._parameters}
        activations = [layer.mlp.act for layer in model.layers]
        eps = encoder_config(model).norm_eps
        return (
            len(dtypes) == 1
            and dtypes <= _INTEGERS.keys()
            and all(map(_is_plain_parameter, self._parameters))
            and all(map(is_exact_gelu, activations))
            and all(type(part) in _KNOWN for part in self._without(activations))
            and all(part.eps == eps for part in self._parts if isinstance(part, nn.LayerNorm))
            and not self._is_changed()
        )

    def _without(self, activations: Sequence[nn.Module]) -> Iterator[nn.Module]:
        """Return the parts that are not in the activations."""
        inside = {id(part) for each in activations for part in each.modules()}
        return (part for part in self._parts if id(part) not in inside)

    def _is_changed(self) -> bool:
        """Return whether a part has hooks or a replaced `forward`, or is in training mode."""
        return any(
            part.training
            or "forward" in vars(part)
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

    def _stamps_now(self) -> list[Any]:
        """Return what tells most changes of the parameters, and all of the norms' epsilons."""
        stamps: list[Any] = [
            (-1 if p.is_inference() else p._version, p.data_ptr()) for p in self._parameters
        ]
        return stamps + [part.eps for part in self._parts if isinstance(part, nn.LayerNorm)]

    def _samples_now(self) -> np.ndarray:
        return np.concatenate(self._views) if self._views else np.zeros(0)


def _is_plain_parameter(parameter: nn.Parameter) -> bool:
    """Return whether a parameter is a plain tensor; quantized ones are of other classes."""
    is_plain = type(parameter) is nn.Parameter and type(parameter.data) is Tensor
    return is_plain and parameter.is_contiguous() and not parameter.is_inference()


def _view(parameter: Tensor) -> np.ndarray:
    """Return some entries of a parameter as integers that share its memory."""
    flat = parameter.detach().view(-1).view(_INTEGERS[parameter.dtype])
    view: np.ndarray = flat[:: max(1, len(flat) // _SAMPLES)].numpy()
    return view


def _are_ids(token_ids: Tensor, vocab_size: int) -> bool:
    """Return whether all ids are in the vocabulary; if not, transformers raises its own error."""
    low, high = token_ids.aminmax()
    return int(low) >= 0 and int(high) < vocab_size


_COPIES: WeakKeyDictionary[nn.Module, _Copy] = WeakKeyDictionary()
