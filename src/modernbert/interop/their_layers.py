"""The layers of a transformers ModernBERT over a flat batch.

Their own modules do all products, norms and dropout, so that whatever became of these, such as
adapters or other parameters, counts. Between them stand our attention and GeGLU.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.interop.inputs import PACKED_KEYS
from modernbert.model.attention import attend_rotated
from modernbert.model.config import EncoderConfig
from modernbert.model.config_file import encoder_numbers
from modernbert.model.layer import gate
from modernbert.model.layout import Layout
from modernbert.model.rope import RotaryTable, rotary_table

_FLAGS = ("output_hidden_states", "output_attentions")
_OPTIONS = {*_FLAGS, "return_dict", "num_items_in_batch", "use_cache", *PACKED_KEYS}

_CONFIGS: WeakKeyDictionary[nn.Module, tuple[int, EncoderConfig]] = WeakKeyDictionary()


def encoder_config(model: Any) -> EncoderConfig:
    """The numbers of an encoder of transformers, as it was built.

    Raises:
        ConfigError: one with parts that are not computed here, such as biases.
    """
    vocab_size = model.embeddings.tok_embeddings.num_embeddings  # it can be resized
    known = _CONFIGS.get(model)
    if known is None or known[0] != vocab_size:
        numbers = {**encoder_numbers(model.config.to_dict()), "vocab_size": vocab_size}
        known = _CONFIGS[model] = vocab_size, EncoderConfig(**numbers)
    return known[1]


def can_run(model: Any, options: Mapping[str, Any]) -> bool:
    """Whether `hidden_states` gives what a call asks for; if not, transformers has to.

    options: the keyword arguments that are no tensors of the batch.
    """
    config = model.config
    asked = {flag: options.get(flag, getattr(config, flag, None)) for flag in _FLAGS}
    if asked["output_attentions"] or not isinstance(asked["output_hidden_states"], bool | None):
        return False
    if options.keys() - _OPTIONS or getattr(config, "is_causal", None):
        return False
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    return _computes_in(model.embeddings.tok_embeddings.weight) and all(
        _is_plain(layer) for layer in model.layers
    )


def hidden_states(
    model: Any, batch: PackedBatch, embeds: Tensor | None, *, keep_all: bool
) -> list[Tensor]:
    """(total_tokens, hidden_size) each: the last hidden state, or with `keep_all` every one.

    embeds: (total_tokens, hidden_size), which take the place of the token embeddings.
    All of them are, as in transformers, the embeddings, each layer's output but the last, and the
    final norm's.
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
    """(total_tokens, hidden_size) to the same."""
    attention, mlp = layer.attn, layer.mlp
    qkv = attention.Wqkv(layer.attn_norm(hidden))
    num_heads = qkv.shape[-1] // (3 * attention.head_dim)
    attended = attend_rotated(qkv, table, layout, num_heads=num_heads, window=window)
    hidden = hidden + attention.out_drop(attention.Wo(attended))
    halves = mlp.Wi(layer.mlp_norm(hidden))
    changed: Tensor = hidden + mlp.Wo(mlp.drop(_gated(mlp.act, halves)))
    return changed


def _gated(activation: Any, halves: Tensor) -> Tensor:
    """(total_tokens, 2 x width) to (total_tokens, width), with whatever activation is there."""
    if is_exact_gelu(activation):
        return gate(halves)
    activated, factors = halves.chunk(2, dim=-1)
    gated: Tensor = activation(activated) * factors
    return gated


def is_exact_gelu(activation: Any) -> bool:
    """Whether a module of transformers or torch computes the GELU of the error function."""
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
    """Whether nobody waits for a call of the layer, or of the parts that are passed over here."""
    attention, mlp = layer.attn, layer.mlp
    if layer.training and attention.attention_dropout:
        return False  # of probabilities, which the kernels never hold
    return not any("forward" in vars(part) or is_watched(part) for part in (layer, attention, mlp))


def is_watched(part: nn.Module) -> bool:
    """Whether a module has hooks, other than those by which transformers collects outputs."""
    hooks = (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
    hooks += (*part._backward_hooks.values(), *part._backward_pre_hooks.values())
    return any(getattr(hook, "__name__", "") != "output_capturing_hook" for hook in hooks)
