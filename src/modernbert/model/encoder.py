"""The encoder: from the token ids of a packed batch to one vector per token."""

from collections.abc import Callable
from contextlib import nullcontext
from ctypes import c_int
from typing import Any, Self

import torch
from torch import Tensor, nn

from modernbert.batch import PackedBatch
from modernbert.devices import compile_layer
from modernbert.errors import ConfigError, InputError
from modernbert.model.choices import AttentionChoice, PrecisionChoice, choose_precision, has_varlen
from modernbert.model.config import EncoderConfig
from modernbert.model.dropout import Dropout
from modernbert.model.graphs import Graphs
from modernbert.model.layer import Layer, add_and_norm, norm_for
from modernbert.model.layout import Layout
from modernbert.model.native.engine import Engine
from modernbert.model.native.onednn import OneDnnEngine, engine_for
from modernbert.model.pretrained import SavedModel
from modernbert.model.rope import rotary_tables


class Embeddings(nn.Module):
    """Token embeddings and a norm; there are no position or type embeddings (P section 2.1.1)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.norm = norm_for(config)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Look up and normalize: (total_tokens,) int64 to (total_tokens, hidden_size)."""
        normed: Tensor = self.norm(self.tok_embeddings(token_ids))
        return normed


class Encoder(SavedModel):
    """ModernBERT (P section 2.1) over a `PackedBatch`: no token is ever padding.

    The weights are read by `from_pretrained`, or drawn as the paper draws them by
    `modernbert.model.initialize`; a module just made has those that torch draws for its parts.

    attention: the back end of attention, where the layers are torch's: `attention_choice`.
    is_causal: whether a token sees only itself and what stands before it; local layers then see the
        left half of their window. For training alone; no folder remembers it.
    fuses: whether compiled layers too add and normalize by our kernel, and not by the compiler's,
        on a GPU; it has not been measured. Layers that are not compiled always do.
    float8: whether the large products of the layers are in float8, in training.
    narrow_stream: whether the residual stream is kept in bfloat16, in training under autocast. It
        moves fewer bytes and rounds each of the layers' sums; it has not been measured on a GPU.
    pause: called, if set, before each layer of a forward. A server computes short batches here,
        with the same encoder, while a long one is under way; it changes no result.
    pause_wanted: while it is not 0, the C kernels call `pause` within layers of many tokens too.

    >>> from modernbert.model.initialize import initialize
    >>> encoder = initialize(Encoder(EncoderConfig.preset("tiny", vocab_size=512)), seed=0)
    >>> encoder(PackedBatch.from_sequences([[5, 6, 7], [8, 9]])).shape
    torch.Size([5, 256])
    """

    kind = "encoder"
    outputs = ("last_hidden_state",)

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_layers))
        self.final_norm: nn.Module = norm_for(config)
        self.engine: Engine | OneDnnEngine | None = None
        self.attention: AttentionChoice = "auto"
        self.is_causal = False
        self.fuses = self.float8 = self.narrow_stream = False
        self.pause: Callable[[], None] | None = None
        self.pause_wanted = c_int(1)
        self.graphs: Graphs | None = None
        self._autocasts = False

    def forward(self, batch: PackedBatch, *, dropout: Dropout | None = None) -> Tensor:
        """Compute the hidden state of every token.

        Args:
            batch: The sequences, packed one after another.
            dropout: Dropout of the attention outputs, in training. Whether the module is in
                training mode makes no difference.

        Returns:
            (total_tokens, hidden_size).

        Raises:
            InputError: No packed batch, a token id outside the vocabulary, or borders that do not
                fit the tokens.
        """
        _check(batch, self.config.vocab_size)
        if self.engine is not None:
            if dropout is not None:
                raise InputError("dropout: this model is packed for inference and cannot train")
            return self.engine(batch, self.pause, self.pause_wanted)
        if self.graphs is not None and dropout is None:
            replayed = self.graphs(batch)
            if replayed is not None:
                return replayed
        return self._compute(batch, dropout)

    @property
    def is_packed(self) -> bool:
        """Whether the weights are those of `for_inference`, no longer float32 as they were read."""
        return self.engine is not None or self._autocasts

    def _compute(self, batch: PackedBatch, dropout: Dropout | None = None) -> Tensor:
        device = batch.token_ids.device.type
        with torch.autocast(device, torch.bfloat16) if self._autocasts else nullcontext():
            return self._forward(batch, dropout)

    def _forward(self, batch: PackedBatch, dropout: Dropout | None) -> Tensor:
        config = self.config
        layout = Layout(
            batch,
            config.window,
            attention=self.attention,
            is_causal=self.is_causal,
            fuses=self.fuses,
            float8=self.float8,
        )
        tables = rotary_tables(config, batch.position_ids)
        hidden, added = self.embeddings(batch.token_ids), None
        if self.narrow_stream:
            hidden = hidden.bfloat16()
        layout.prepare()
        for index, (layer, kind) in enumerate(zip(self.layers, config.layer_kinds, strict=True)):
            if self.pause is not None:
                self.pause()
            draws = None if dropout is None else dropout.draw(hidden, index)
            hidden, added = layer(hidden, added, tables[kind], layout, draws)
        assert added is not None  # there are layers
        _, normed = add_and_norm(hidden, added, self.final_norm, layout)
        return normed

    def compile_layers(
        self, backend: str | Callable[..., Any] = "inductor", *, dynamic: bool | None = None
    ) -> Self:
        """Let torch's compiler fuse norms, rotation, GeGLU and sums; meant for CUDA.

        Layers of one kind are compiled once, at the first forward pass of each shape, so use
        batches of few shapes, as `PackedBatch.filled_up` makes them. Attention by `blocks` depends
        on the lengths in each batch and is compiled anew for each; `varlen`, `flash3` and `flex`
        are not.

        Args:
            backend: The back end of torch's compiler.
            dynamic: Whether to compile once for batches of all shapes.
        """
        for layer in self.layers:
            compile_layer(layer, backend, dynamic=dynamic)
        return self

    def compile_for_inference(self) -> Self:
        """Let the compiler fuse the layers if attention is `varlen`; call it after `for_inference`.

        The layers are compiled once, for batches of all shapes. Then CUDA graphs are recorded for
        batches of few short texts, where they are faster. Otherwise nothing changes: the C kernels
        are compiled already, and `blocks` would be compiled anew for each batch.
        """
        device = self.embeddings.tok_embeddings.weight.device
        if self._autocasts and has_varlen(device):
            self.compile_layers(dynamic=True)
            with torch.no_grad():
                self.graphs = Graphs(self._compute, device)
        return self

    def for_inference(self, precision: PrecisionChoice = "auto") -> Self:
        """Prepare to compute hidden states as fast as the device can, without gradients.

        If the C kernels run, the weights are packed for them and the trainable ones are released.
        Elsewhere in bfloat16, the matrices of the layers are kept in bfloat16. In both cases the
        model can be neither trained nor saved afterwards.

        Args:
            precision: The precision of weights and products; the residual stream, sums, norms and
                softmax are always float32. `auto` is bfloat16 if the device has units for it, and
                float32 otherwise. int8 has a scale per token, so the result of a text does not
                depend on the other texts.

        Raises:
            ConfigError: The CPU or the sizes of the model do not allow int8, or the encoder is
                causal.
        """
        if self.is_causal:
            raise ConfigError("is_causal: got True, expected False: it is for training alone")
        device = self.embeddings.tok_embeddings.weight.device
        chosen, packed = choose_precision(self.config, precision, device)
        self.requires_grad_(False)
        self.eval()
        if packed:
            self.engine = engine_for(self, chosen)
            self.layers, self.final_norm = nn.ModuleList(), nn.Identity()
        elif chosen == "bfloat16":
            self._autocasts = True
            for part in self.layers.modules():
                if isinstance(part, nn.Linear):  # what autocast would do in each forward
                    part.to(torch.bfloat16)
        return self


def _check(batch: PackedBatch, vocab_size: int) -> None:
    """Check a batch on the CPU; on other devices this would wait, and they check by themselves."""
    if not isinstance(batch, PackedBatch):
        raise InputError(
            f"batch: got {type(batch).__name__}, expected a PackedBatch; make one of token ids by "
            "PackedBatch.from_sequences([[5, 6, 7]])"
        )
    if batch.token_ids.device.type != "cpu" or torch.compiler.is_compiling():
        return
    borders, total_tokens = batch.cu_seqlens, batch.total_tokens
    ends = borders[[0, -1]].tolist() if len(borders) else None
    if ends != [0, total_tokens] or not total_tokens or (borders.diff() < 0).any():
        raise InputError(
            "cu_seqlens: expected numbers that rise from 0 to the number of tokens, "
            f"1 or more; got {ends} at the ends for {total_tokens} tokens"
        )
    if (longest := int(batch.lengths.max())) > batch.max_seqlen:
        raise InputError(f"max_seqlen: got {batch.max_seqlen}, expected {longest} or more")
    low, high = batch.token_ids.aminmax()
    if low < 0 or high >= vocab_size:
        raise InputError(
            f"token_ids: got {int(low) if low < 0 else int(high)}, "
            f"expected ids from 0 to {vocab_size - 1}"
        )


def encoder_of(model: nn.Module) -> Encoder:
    """Return the encoder within a module."""
    return next(part for part in model.modules() if isinstance(part, Encoder))
