"""The layers of a transformers ModernBERT over a flat batch, and packed copies of their weights.

The model's own modules compute all products, norms and dropout, so adapters and replaced
parameters have their effect. Only attention and GeGLU are ours.

A copy is made by the first call in evaluation mode that needs no gradients, on a CPU for which
there are kernels. It takes as much memory as the layers themselves. It is used as long as the
model's weights stay the same, and dropped by the next call that trains.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.modernbert import modeling_modernbert as theirs

from modernbert.batch import PackedBatch
from modernbert.interop.batches import PACKED_KEYS
from modernbert.model.attention import attend_rotated
from modernbert.model.choices import choose_precision
from modernbert.model.config import EncoderConfig
from modernbert.model.config_file import LAYER_KINDS, encoder_numbers
from modernbert.model.encoder import Encoder
from modernbert.model.layer import gate
from modernbert.model.layout import Layout
from modernbert.model.rope import RotaryTable, rotary_tables

_FLAGS = ("output_hidden_states", "output_attentions")
_OPTIONS = {*_FLAGS, "return_dict", "num_items_in_batch", "use_cache", *PACKED_KEYS}


_BYPASSED = {
    "embeddings": theirs.ModernBertEmbeddings,
    "rotary_emb": theirs.ModernBertRotaryEmbedding,
}
_BYPASSED_IN_LAYERS = {"attn": theirs.ModernBertAttention, "mlp": theirs.ModernBertMLP}

_CONFIGS: WeakKeyDictionary[nn.Module, tuple[Any, EncoderConfig]] = WeakKeyDictionary()


def encoder_config(model: Any) -> EncoderConfig:
    """Return the config of a transformers encoder, as it was built, with the layers that it has.

    Raises:
        ConfigError: It has parts that are not supported here.
    """
    # Users can resize the embeddings and remove layers.
    changed = {
        "vocab_size": model.embeddings.tok_embeddings.num_embeddings,
        "layer_kinds": tuple(LAYER_KINDS[layer.attention_type] for layer in model.layers),
    }
    known = _CONFIGS.get(model)
    if known is None or known[0] != changed:
        numbers = {**encoder_numbers(model.config.to_dict()), **changed}
        known = _CONFIGS[model] = changed, EncoderConfig(**numbers)
    return known[1]


def unknown_part(model: Any) -> str | None:
    """Return the first part of an encoder that the kernels can neither call nor stand in for.

    Args:
        model: An encoder of transformers.

    Returns:
        Its name and class, such as "layers.3.attn (MyAttention)", or None if there is none.
    """
    parts = model._modules
    for name, expected in _BYPASSED.items():
        if type(parts[name]) is not expected:
            return _described(name, parts[name])
    tokens = model.embeddings.tok_embeddings
    if type(tokens) is not nn.Embedding:
        return _described("embeddings.tok_embeddings", tokens)
    for index, layer in parts["layers"]._modules.items():
        if (found := _unknown_in_layer(layer)) is not None:
            return _described(f"layers.{index}{found[0]}", found[1])
    return None


def _unknown_in_layer(layer: nn.Module) -> tuple[str, nn.Module] | None:
    """Return the name and the module of the first such part of a layer."""
    if type(layer) is not theirs.ModernBertEncoderLayer:
        return "", layer
    for name, expected in _BYPASSED_IN_LAYERS.items():
        part = layer._modules[name]
        assert part is not None
        if type(part) is not expected:
            return f".{name}", part
        for inner, module in part._modules.items():
            # What dynamic quantization gives for a token depends on the others, and on padding.
            if module is not None and ".quantized." in type(module).__module__:
                return f".{name}.{inner}", module
    return None


def _described(name: str, part: nn.Module) -> str:
    return f"{name} ({type(part).__name__})"


def can_run(model: Any, options: Mapping[str, Any]) -> bool:
    """Return whether `hidden_states` can compute what a call asks for.

    Args:
        model: An encoder of transformers.
        options: The keyword arguments of the call, except the tensors of the batch.
    """
    config = model.config
    asked = {flag: options.get(flag, getattr(config, flag, None)) for flag in _FLAGS}
    if asked["output_attentions"] or not isinstance(asked["output_hidden_states"], bool | None):
        return False
    if options.keys() - _OPTIONS or getattr(config, "is_causal", None):
        return False
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    return (
        unknown_part(model) is None
        and _computes_in(model.embeddings.tok_embeddings.weight)
        and _has_first_angles(model.rotary_emb)
        and all(_is_plain(layer) for layer in model.layers)
    )


def is_exact_gelu(activation: Any) -> bool:
    """Return whether a module of transformers or torch computes GELU by the error function."""
    if isinstance(activation, nn.GELU):
        return activation.approximate == "none"
    is_theirs = type(activation).__name__ == "GELUActivation"
    return is_theirs and getattr(activation, "act", None) is functional.gelu


def _computes_in(weight: Tensor) -> bool:
    if weight.device.type == "meta":
        return False
    half = weight.dtype is torch.float16 and weight.is_cuda
    return half or weight.dtype in (torch.float32, torch.bfloat16)


def _is_plain(layer: Any) -> bool:
    """Return whether neither the layer nor a part that is bypassed here has hooks."""
    attention, mlp = layer.attn, layer.mlp
    if layer.training and attention.attention_dropout:
        return False  # the kernels never store the probabilities that it would drop
    return not any("forward" in vars(part) or is_watched(part) for part in (layer, attention, mlp))


def _has_first_angles(rotary: Any) -> bool:
    """Return whether the angles are those of the config, and their module has no hooks."""
    angles = dict(rotary.named_buffers())
    return not ("forward" in vars(rotary) or is_watched(rotary)) and all(
        torch.equal(values, angles[name.replace("_original_", "_")])
        for name, values in angles.items()
    )


def is_watched(part: nn.Module) -> bool:
    """Return whether a module has hooks other than those that collect transformers' outputs."""
    if not (part._forward_hooks or part._forward_pre_hooks) and not (
        part._backward_hooks or part._backward_pre_hooks
    ):
        return False
    hooks = (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
    hooks += (*part._backward_hooks.values(), *part._backward_pre_hooks.values())
    return any(getattr(hook, "__name__", "") != "output_capturing_hook" for hook in hooks)


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
    tables = rotary_tables(config, batch.position_ids)
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
