"""The layers of a transformers ModernBERT over a flat batch, and packed copies of their weights.

Their own modules do all products, norms and dropout, so that whatever became of these, such as
adapters or other parameters, counts. Between them stand our attention and GeGLU.

The copies are made at the first call that needs no gradients, in evaluation mode and on a CPU that
has the kernels, and take as much memory as the layers again. A copy is used as long as the model's
weights are what they were, and dropped by the next call that trains.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.interop.inputs import PACKED_KEYS
from modernbert.model.attention import attend_rotated
from modernbert.model.config import EncoderConfig
from modernbert.model.config_file import encoder_numbers
from modernbert.model.encoder import Encoder
from modernbert.model.layer import gate
from modernbert.model.layout import Layout
from modernbert.model.precision import choose_precision
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
