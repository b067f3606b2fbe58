"""`Engine`: an encoder's forward pass in C, with the weights packed for the CPU's units."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.model.config import EncoderConfig, LayerKind
from modernbert.model.native.loading import has_bfloat16, has_int8, library
from modernbert.model.rope import rotary_table

Precision = Literal["float32", "bfloat16", "int8"]

HEAD_SIZE = 64
PANEL = 64
_KINDS: dict[Precision, int] = {"float32": 0, "bfloat16": 1, "int8": 2}
_FIRST_ANGLES = 1024
_PAUSE = ctypes.CFUNCTYPE(ctypes.c_int)


def supports(config: EncoderConfig, precision: Precision) -> bool:
    """Whether an encoder of these sizes can run here in this precision."""
    available = {"float32": library() is not None, "bfloat16": has_bfloat16(), "int8": has_int8()}
    sizes_fit = (
        config.head_size == HEAD_SIZE
        and config.hidden_size % PANEL == 0
        and config.intermediate_size % PANEL == 0
    )
    return sizes_fit and available[precision]


class _Weights(ctypes.Structure):
    _fields_ = (
        ("panels", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("columns", ctypes.c_long),
        ("depth", ctypes.c_long),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        ("attention_norm", ctypes.c_void_p),
        ("mlp_norm", ctypes.c_void_p),
        ("qkv", _Weights),
        ("out", _Weights),
        ("in_", _Weights),
        ("down", _Weights),
        ("angles", ctypes.c_void_p),
        ("is_global", ctypes.c_long),
    )


class _Shape(ctypes.Structure):
    _fields_ = (
        ("hidden", ctypes.c_long),
        ("inner", ctypes.c_long),
        ("num_heads", ctypes.c_long),
        ("window", ctypes.c_long),
        ("kind", ctypes.c_long),
        ("num_threads", ctypes.c_long),
        ("eps", ctypes.c_float),
    )


class _Batch(ctypes.Structure):
    _fields_ = (
        ("borders", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("num_sequences", ctypes.c_long),
        ("total", ctypes.c_long),
    )


@dataclass(frozen=True)
class PackedWeights:
    """A matrix (columns, depth), as panels of 64 columns: see `products.h`.

    panels: (columns / 64, depth / g, 64, g), g = 1 float32, 2 bfloat16, 4 int8.
    scales: (columns,) float32, int8 only: what 1 stands for in each column.
    offsets: (columns,) int32, int8 only: 128 times each column's sum.
    """

    panels: Tensor
    scales: Tensor | None = None
    offsets: Tensor | None = None

    @classmethod
    def pack(cls, weight: Tensor, precision: Precision) -> "PackedWeights":
        """Pack a matrix (columns, depth) of float32."""
        weight = weight.detach().float()
        if precision == "float32":
            return cls(_panels(weight, 1))
        if precision == "bfloat16":
            return cls(_panels(weight.bfloat16(), 2))
        scales = weight.abs().amax(dim=1).clamp(min=1e-20) / 127
        whole = (weight / scales[:, None]).round().to(torch.int8)
        return cls(_panels(whole, 4), scales, 128 * whole.sum(dim=1, dtype=torch.int32))

    def describe(self) -> _Weights:
        """What the C code is told."""
        num_panels, parts, width, group = self.panels.shape
        return _Weights(
            panels=self.panels.data_ptr(),
            scales=None if self.scales is None else self.scales.data_ptr(),
            offsets=None if self.offsets is None else self.offsets.data_ptr(),
            columns=num_panels * width,
            depth=parts * group,
        )


def _panels(weight: Tensor, group: int) -> Tensor:
    columns, depth = weight.shape
    panels = weight.view(columns // PANEL, PANEL, depth // group, group)
    return panels.transpose(1, 2).contiguous()


def interleave(halves: Tensor) -> Tensor:
    """Rows a, b of a GeGLU's first matrix so that each panel holds 32 a's and their 32 b's.

    halves: (2 x width, depth).
    """
    a, b = (half.unflatten(0, (-1, PANEL // 2)) for half in halves.detach().chunk(2))
    return torch.stack((a, b), dim=1).flatten(0, 2)


class Engine:
    """The forward pass of one encoder; it keeps packed copies of the weights.

    encoder: an `Encoder`, whose weights are read once; the token embedding, which begins the
        residual stream, is used as it is.
    precision: of weights and products. Sums, norms, softmax and the residual stream are float32
        in each; int8 has a scale for each column of a weight and each token, so that a text's
        result does not depend on its neighbours.
    """

    def __init__(self, encoder: Any, precision: Precision) -> None:
        config: EncoderConfig = encoder.config
        self.config = config
        self.precision = precision
        self._is_narrow = precision != "float32" and has_bfloat16()
        self._embedding: Tensor = encoder.embeddings.tok_embeddings.weight.detach()
        self._embedding_norm = _copy(encoder.embeddings.norm.weight)
        self._final_norm = _copy(encoder.final_norm.weight)
        self._kept: list[Tensor | PackedWeights] = []
        self._layers = (_Layer * config.num_layers)(*map(self._pack, encoder.layers))
        self._angles: dict[LayerKind, Tensor] = {}

    def __call__(self, batch: PackedBatch, pause: Callable[[], None] | None = None) -> Tensor:
        """(total_tokens, hidden_size) float32. The hidden state of every token.

        pause: called before each layer, and within those of many tokens; it may compute other
            batches with this engine, and what it raises ends the pass.

        Raises:
            InputError: no token.
        """
        if batch.total_tokens == 0:
            raise InputError("an empty batch: expected at least one token")
        config, total = self.config, batch.total_tokens
        self._extend_angles(min(batch.max_seqlen, total))
        positions = batch.position_ids.to(torch.int32)
        borders, token_ids = batch.cu_seqlens.contiguous(), batch.token_ids.contiguous()
        kernels, shape = self._kernels(), ctypes.byref(self._shape())
        described = _Batch(borders.data_ptr(), positions.data_ptr(), batch.num_sequences, total)
        stream = torch.empty(total, config.hidden_size)
        dtype = torch.bfloat16 if self._is_narrow else torch.float32
        attention = torch.empty(total, 3 * config.hidden_size, dtype=dtype)
        kernels.modernbert_embed(
            shape,
            _at(self._embedding),
            _at(self._embedding_norm),
            _at(token_ids),
            ctypes.c_long(total),
            _at(stream),
        )
        pauses = _Pauses(pause)
        failed = kernels.modernbert_layers(
            shape,
            self._layers,
            *(ctypes.c_long(n) for n in (config.num_layers, 0, config.num_layers)),
            ctypes.byref(described),
            _at(stream),
            _at(attention),
            pauses.function,
        )
        if pauses.error is not None:
            raise pauses.error
        if failed:
            raise MemoryError("the encoder's kernels could not get their buffers")
        kernels.modernbert_normalize(
            shape, _at(self._final_norm), ctypes.c_long(total), _at(stream)
        )
        return stream

    def _kernels(self) -> ctypes.CDLL:
        kernels = library()
        assert kernels is not None, "callers ask `supports` first"
        return kernels

    def _shape(self) -> _Shape:
        config = self.config
        return _Shape(
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            num_heads=config.num_heads,
            window=config.window,
            kind=_KINDS[self.precision],
            num_threads=torch.get_num_threads(),
            eps=config.norm_eps,
        )

    def _pack(self, layer: Any) -> _Layer:
        """One layer's weights, packed; everything that is pointed at is kept alive here."""
        attention, mlp = layer.attn, layer.mlp
        matrices = (
            attention.Wqkv.weight,
            attention.Wo.weight,
            interleave(mlp.Wi.weight),
            mlp.Wo.weight,
        )
        packed = [PackedWeights.pack(matrix, self.precision) for matrix in matrices]
        norms = [_copy(layer.mlp_norm.weight)]
        if layer.index:
            norms.insert(0, _copy(layer.attn_norm.weight))
        self._kept += [*packed, *norms]
        kind = self.config.layer_kinds[layer.index]
        return _Layer(
            norms[0].data_ptr() if layer.index else None,
            norms[-1].data_ptr(),
            *(weights.describe() for weights in packed),
            is_global=kind == "global",
        )

    def _extend_angles(self, length: int) -> None:
        """Tables of angles for positions up to `length`, one for each kind of layer."""
        held = next(iter(self._angles.values()), torch.empty(0))
        if len(held) >= length:
            return
        positions = torch.arange(max(_FIRST_ANGLES, 2 * len(held), length))
        self._kept += self._angles.values()  # another thread may be reading them
        for kind in set(self.config.layer_kinds):
            table = rotary_table(positions, HEAD_SIZE, self.config.theta(kind))
            self._angles[kind] = torch.cat(table, dim=1)  # (positions, 64): cosines, then sines
        for layer, kind in zip(self._layers, self.config.layer_kinds, strict=True):
            layer.angles = self._angles[kind].data_ptr()


class _Pauses:
    """A function of Python that the kernels call; what it raises is kept, and stops them.

    function: for the kernels; a null pointer when there is nothing to call.
    """

    def __init__(self, pause: Callable[[], None] | None) -> None:
        self.error: BaseException | None = None
        self._pause = pause
        self.function = _PAUSE() if pause is None else _PAUSE(self._call)

    def _call(self) -> int:
        try:
            if self._pause is not None:
                self._pause()
        except BaseException as error:
            self.error = error
        return int(self.error is not None)


def _copy(weight: Tensor) -> Tensor:
    return weight.detach().float().clone()


def _at(values: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.data_ptr())
