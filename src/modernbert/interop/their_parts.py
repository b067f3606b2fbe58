"""What a live transformers encoder is made of, and whether the kernels may stand in for it.

Parts that are called as modules, such as products and norms, can be anything. Those that are
bypassed
have to be what transformers makes, without hooks.
"""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.modernbert import modeling_modernbert as theirs

from modernbert.interop.inputs import PACKED_KEYS
from modernbert.model.config import EncoderConfig
from modernbert.model.config_file import LAYER_KINDS, encoder_numbers

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
