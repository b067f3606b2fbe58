"""`OneDnnEngine`: the forward pass with oneDNN's products, for CPUs with AMX."""

from collections.abc import Callable
from ctypes import c_int
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.model.config import EncoderConfig, LayerKind
from modernbert.model.layout import Layout
from modernbert.model.native.engine import Engine, Precision
from modernbert.model.native.functions import attend, geglu, quantize
from modernbert.model.native.loading import takes_onednn
from modernbert.model.rope import rotary_tables

_ZERO = 128  # what stands for 0 in oneDNN's unsigned rows


def engine_for(encoder: Any, precision: Precision) -> "Engine | OneDnnEngine":
    """Return the engine that suits the CPU: see `Engine` for the arguments."""
    is_geglu = encoder.config.activation == "gelu"
    if precision != "float32" and is_geglu and takes_onednn():
        return OneDnnEngine(encoder, precision)
    return Engine(encoder, precision)


class Bfloat16Product:
    """A matrix (columns, depth) in the order that oneDNN wants, to multiply rows with."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().bfloat16())

    def __call__(self, rows: Tensor) -> Tensor:
        """(num_rows, depth), float32 or bfloat16, to (num_rows, columns) bfloat16."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows.bfloat16(), self._weight, None, "none", [], ""
        )
        return product


class Int8Product:
    """The same in int8, with a scale for each column of the matrix and for each row."""

    def __init__(self, weight: Tensor) -> None:
        whole, self._scales = quantize(weight.detach().float())
        signed = (whole.to(torch.int16) - _ZERO).to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(signed, None)
        self._zeros = torch.zeros(len(whole), dtype=torch.int64)

    def __call__(self, rows: Tensor) -> Tensor:
        """(num_rows, depth), float32 or bfloat16, to (num_rows, columns) bfloat16."""
        whole, scales = quantize(rows)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            *(whole, 1.0, _ZERO, self._weight, self._scales, self._zeros, None),
            *(1.0, 0, torch.bfloat16, "none", [], ""),
        )
        return product.mul_(scales[:, None])


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """One layer's weights; `attention_norm` is None in the first."""

    kind: LayerKind
    attention_norm: Tensor | None
    mlp_norm: Tensor
    qkv: Bfloat16Product | Int8Product
    out: Bfloat16Product | Int8Product
    gated: Bfloat16Product | Int8Product
    down: Bfloat16Product | Int8Product


class OneDnnEngine:
    """As `Engine`, with oneDNN's products between the attention and the GeGLU in C.

    oneDNN multiplies in the tiles of AMX, which the package's own products do not use. What is
    between products is bfloat16; norms and the residual stream are float32.

    Args:
        encoder: An `Encoder`, whose weights are read once.
        precision: `bfloat16` or `int8`.
    """

    def __init__(self, encoder: Any, precision: Precision) -> None:
        self.config: EncoderConfig = encoder.config
        self.precision = precision
        self._product = Int8Product if precision == "int8" else Bfloat16Product
        self._embedding: Tensor = encoder.embeddings.tok_embeddings.weight.detach()
        self._embedding_norm = _copy(encoder.embeddings.norm.weight)
        self._final_norm = _copy(encoder.final_norm.weight)
        self._layers = [self._pack(layer) for layer in encoder.layers]

    @torch.no_grad()
    def __call__(
        self,
        batch: PackedBatch,
        pause: Callable[[], None] | None = None,
        wanted: c_int | None = None,  # noqa: ARG002
    ) -> Tensor:
        """(total_tokens, hidden_size) float32. The hidden state of every token.

        Args:
            batch: At least one token.
            pause: Called before each layer; it may compute other batches with this engine, and
                what it raises ends the pass.
            wanted: As for `Engine`, and without effect here: no pause comes within a layer.

        Raises:
            InputError: No token.
        """
        if batch.total_tokens == 0:
            raise InputError("an empty batch: expected at least one token")
        config, layout = self.config, Layout(batch, self.config.window)
        tables = rotary_tables(config, batch.position_ids)
        embedded = functional.embedding(batch.token_ids, self._embedding).float()
        stream = self._normed(embedded, self._embedding_norm)
        for layer in self._layers:
            if pause is not None:
                pause()
            window = config.window if layer.kind == "local" else None
            qkv = layer.qkv(self._normed(stream, layer.attention_norm))
            attended = attend(
                qkv, tables[layer.kind], layout, num_heads=config.num_heads, window=window
            )
            stream += layer.out(attended)
            halves = layer.gated(self._normed(stream, layer.mlp_norm))
            stream += layer.down(geglu(halves))
        return self._normed(stream, self._final_norm)

    def _normed(self, rows: Tensor, weight: Tensor | None) -> Tensor:
        if weight is None:
            return rows
        return functional.layer_norm(rows, weight.shape, weight, None, self.config.norm_eps)

    def _pack(self, layer: Any) -> _Layer:
        return _Layer(
            kind=self.config.layer_kinds[layer.index],
            attention_norm=_copy(layer.attn_norm.weight) if layer.index else None,
            mlp_norm=_copy(layer.mlp_norm.weight),
            qkv=self._product(layer.attn.Wqkv.weight),
            out=self._product(layer.attn.Wo.weight),
            gated=self._product(layer.mlp.Wi.weight),
            down=self._product(layer.mlp.Wo.weight),
        )


def _copy(weight: Tensor) -> Tensor:
    return weight.detach().float().clone()
