"""`Engine`: an encoder's forward pass in C, with the weights packed for the CPU's units."""

import ctypes
import mmap
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.model.config import Activation, EncoderConfig, LayerKind
from modernbert.model.native.loading import has_bfloat16, has_int8, library
from modernbert.model.rope import rotary_tables

Precision = Literal["float32", "bfloat16", "int8"]

HEAD_SIZE = 64
_KINDS: dict[Precision, int] = {"float32": 0, "bfloat16": 1, "int8": 2}
_ENTRY_BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2, "int8": 1}
_ACTIVATIONS: dict[Activation, int] = {
    "gelu": 0,
    "gelu_tanh": 1,
    "silu": 2,
    "relu": 3,
    "relu2": 4,
}
_FIRST_ANGLES = 1024
_PAUSE = ctypes.CFUNCTYPE(ctypes.c_int)
_ALWAYS = ctypes.c_int(1)


def supports(config: EncoderConfig, precision: Precision) -> bool:
    """Return whether an encoder of these sizes can run here in this precision."""
    available = {"float32": library() is not None, "bfloat16": has_bfloat16(), "int8": has_int8()}
    sizes_fit = config.head_size == HEAD_SIZE and config.intermediate_size % 32 == 0
    has_biases = config.attention_bias or config.mlp_bias or config.norm_bias
    return sizes_fit and not has_biases and available[precision]


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
        ("activation", ctypes.c_long),
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
    """A matrix (columns, depth), packed by the kernels for one precision.

    Attributes:
        panels: (bytes,) uint8, in the order that the kernels in use read: see `products.h`.
        scales: (columns,) float32, int8 only: what 1 stands for in each column.
        offsets: (columns,) int32, int8 only: what is taken off each column's sums.
    """

    panels: Tensor
    scales: Tensor
    offsets: Tensor
    columns: int
    depth: int
    precision: Precision

    @classmethod
    def pack(
        cls,
        weight: Tensor,
        precision: Precision,
        *,
        is_gated: bool = False,
        panels: Tensor | None = None,
    ) -> "PackedWeights":
        """Pack a matrix.

        Args:
            weight: (columns, depth), multiples of 64 and 32.
            precision: What to multiply in.
            is_gated: Whether the first half of the columns is gated by the second, as in a GeGLU's
                first matrix.
            panels: Memory for the result, as many bytes as it takes; new when absent.
        """
        weight = weight.detach().float().contiguous()
        columns, depth = weight.shape
        num_scales = columns if precision == "int8" else 0
        if panels is None:
            panels = torch.empty(columns * depth * _ENTRY_BYTES[precision], dtype=torch.uint8)
        packed = cls(
            panels=panels,
            scales=torch.empty(num_scales),
            offsets=torch.empty(num_scales, dtype=torch.int32),
            columns=columns,
            depth=depth,
            precision=precision,
        )
        _kernels().modernbert_pack(
            ctypes.c_long(_KINDS[precision]),
            _at(weight),
            *(ctypes.c_long(number) for number in (columns, depth, is_gated)),
            *map(_at, (packed.panels, packed.scales, packed.offsets)),
            ctypes.c_long(torch.get_num_threads()),
        )
        return packed

    def multiply(self, rows: Tensor) -> Tensor:
        """Return the product `rows @ weight.T` alone.

        Args:
            rows: (num_rows, depth) float32.

        Returns:
            (num_rows, columns) float32.
        """
        rows = rows.float().contiguous()
        out = torch.empty(len(rows), self.columns)
        failed = _kernels().modernbert_multiply(
            ctypes.c_long(_KINDS[self.precision]),
            _at(rows),
            ctypes.c_long(len(rows)),
            ctypes.byref(self.describe()),
            _at(out),
            ctypes.c_long(torch.get_num_threads()),
        )
        if failed:
            raise MemoryError("the product's kernel could not get its buffers")
        return out

    def describe(self) -> _Weights:
        """Return what the C code is told."""
        return _Weights(
            panels=self.panels.data_ptr(),
            scales=self.scales.data_ptr(),
            offsets=self.offsets.data_ptr(),
            columns=self.columns,
            depth=self.depth,
        )


class Engine:
    """The forward pass of one encoder; it keeps packed copies of the weights.

    Args:
        encoder: An `Encoder`, whose weights are read once; the token embedding, which begins the
            residual stream, is used as it is.
        precision: Of weights and products. Sums, norms, softmax and the residual stream are float32
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
        self._memory = _large_pages(_packed_bytes(encoder.layers, precision))
        self._layers = (_Layer * config.num_layers)(*map(self._pack, encoder.layers))
        self._angles: dict[LayerKind, Tensor] = {}

    def __call__(
        self,
        batch: PackedBatch,
        pause: Callable[[], None] | None = None,
        wanted: ctypes.c_int = _ALWAYS,
    ) -> Tensor:
        """(total_tokens, hidden_size) float32. The hidden state of every token.

        Args:
            batch: The sequences, packed one after another.
            pause: Called before each layer; it may compute other batches with this engine, and
                what it raises ends the pass.
            wanted: While it is not 0, `pause` is called within layers of many tokens too, as soon
                as each thread has done what it has begun. Any thread may set it.

        Raises:
            InputError: No token.
        """
        if batch.total_tokens == 0:
            raise InputError("an empty batch: expected at least one token")
        config, total = self.config, batch.total_tokens
        self._extend_angles(min(batch.max_seqlen, total))
        positions = batch.position_ids.to(torch.int32)
        borders, token_ids = batch.cu_seqlens.contiguous(), batch.token_ids.contiguous()
        kernels, shape = _kernels(), ctypes.byref(self._shape())
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
            ctypes.byref(wanted),
        )
        if pauses.error is not None:
            raise pauses.error
        if failed:
            raise MemoryError("the encoder's kernels could not get their buffers")
        kernels.modernbert_normalize(
            shape, _at(self._final_norm), ctypes.c_long(total), _at(stream)
        )
        return stream

    def _shape(self) -> _Shape:
        config = self.config
        return _Shape(
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            num_heads=config.num_heads,
            window=config.window,
            kind=_KINDS[self.precision],
            activation=_ACTIVATIONS[config.activation],
            num_threads=torch.get_num_threads(),
            eps=config.norm_eps,
        )

    def _pack(self, layer: Any) -> _Layer:
        """One layer's weights, packed; everything that is pointed at is kept alive here."""
        attention, mlp = layer.attn, layer.mlp
        matrices = (
            attention.Wqkv.weight,
            attention.Wo.weight,
            mlp.Wi.weight,
            mlp.Wo.weight,
        )
        packed = [self._pack_matrix(matrix, matrix is mlp.Wi.weight) for matrix in matrices]
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

    def _pack_matrix(self, matrix: Tensor, is_gated: bool) -> PackedWeights:
        """A matrix in the next piece of the memory for packed weights."""
        size = matrix.numel() * _ENTRY_BYTES[self.precision]
        panels, self._memory = self._memory[:size], self._memory[size:]
        return PackedWeights.pack(matrix, self.precision, is_gated=is_gated, panels=panels)

    def _extend_angles(self, length: int) -> None:
        """Tables of angles for positions up to `length`, one for each kind of layer."""
        held = next(iter(self._angles.values()), torch.empty(0))
        if len(held) >= length:
            return
        positions = torch.arange(max(_FIRST_ANGLES, 2 * len(held), length))
        self._kept += self._angles.values()  # another thread may be reading them
        for kind, table in rotary_tables(self.config, positions).items():
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


def _kernels() -> ctypes.CDLL:
    kernels = library()
    assert kernels is not None, "callers ask `supports` first"
    return kernels


def _packed_bytes(layers: Any, precision: Precision) -> int:
    entries: int = sum(
        matrix.weight.numel()
        for layer in layers
        for matrix in (layer.attn.Wqkv, layer.attn.Wo, layer.mlp.Wi, layer.mlp.Wo)
    )
    return entries * _ENTRY_BYTES[precision]


def _large_pages(size: int) -> Tensor:
    """Memory in pages of 2 MB where the system has them.

    A short text reads every weight once and does little with it. Through pages of 4 KB a core of
    a Zen 4 reads 19 GB/s, through these 29.
    """
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def _copy(weight: Tensor) -> Tensor:
    return weight.detach().float().clone()


def _at(values: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.data_ptr())
