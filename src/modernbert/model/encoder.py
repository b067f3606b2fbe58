"""The encoder: token ids of a packed batch to one vector a token."""

import torch
from torch import Tensor, nn

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.model.config import EncoderConfig
from modernbert.model.dropout import Dropout
from modernbert.model.layer import Layer, LayerNorm
from modernbert.model.layout import Layout
from modernbert.model.pretrained import SavedModel
from modernbert.model.rope import rotary_table


class Embeddings(nn.Module):
    """Token embeddings and a norm; there are no position or type embeddings (P section 2.1.1)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.norm_eps)

    def forward(self, token_ids: Tensor) -> Tensor:
        """(total_tokens,) int64 to (total_tokens, hidden_size)."""
        normed: Tensor = self.norm(self.tok_embeddings(token_ids))
        return normed


class Encoder(SavedModel):
    """ModernBERT (P section 2.1) over a `PackedBatch`: no token is ever padding.

    The weights are drawn by `modernbert.model.initialize` or read by `from_pretrained`; a module
    just made holds arbitrary ones.

    >>> from modernbert.model.initialize import initialize
    >>> encoder = initialize(Encoder(EncoderConfig.preset("tiny", vocab_size=512)), seed=0)
    >>> encoder(PackedBatch.from_sequences([[5, 6, 7], [8, 9]])).shape
    torch.Size([5, 256])
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_layers))
        self.final_norm = LayerNorm(config.hidden_size, config.norm_eps)

    def forward(self, batch: PackedBatch, *, dropout: Dropout | None = None) -> Tensor:
        """The hidden state of every token: (total_tokens, hidden_size).

        dropout: of the attention outputs, in training; whether the module is in training mode
            changes nothing.

        Raises:
            InputError: a token id outside the vocabulary, or borders that do not fit the tokens.
        """
        config = self.config
        _check(batch, config.vocab_size)
        layout = Layout(batch, config.window)
        tables = {
            kind: rotary_table(batch.position_ids, config.head_size, config.theta(kind))
            for kind in set(config.layer_kinds)
        }
        hidden = self.embeddings(batch.token_ids)
        for layer, kind in zip(self.layers, config.layer_kinds, strict=True):
            hidden = layer(hidden, tables[kind], layout, dropout)
        normed: Tensor = self.final_norm(hidden)
        return normed


def _check(batch: PackedBatch, vocab_size: int) -> None:
    """On the CPU alone: elsewhere it would wait for the device, which checks by itself."""
    if batch.token_ids.device.type != "cpu" or torch.compiler.is_compiling():
        return
    borders, total_tokens = batch.cu_seqlens, batch.total_tokens
    ends = borders[[0, -1]].tolist() if len(borders) else None
    if ends != [0, total_tokens] or not total_tokens or (borders.diff() < 0).any():
        raise InputError(
            "cu_seqlens: expected numbers that rise from 0 to the number of tokens, "
            f"1 or more; got {ends} at the ends for {total_tokens} tokens"
        )
    low, high = batch.token_ids.aminmax()
    if low < 0 or high >= vocab_size:
        raise InputError(
            f"token_ids: got {int(low) if low < 0 else int(high)}, "
            f"expected ids from 0 to {vocab_size - 1}"
        )
