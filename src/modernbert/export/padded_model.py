"""Models of every kind over padded rows, in plain operations that can be exported.

The weights are the model's own. Any number of rows and columns is allowed: the tables of angles and
the masks are computed in the graph from the length of the input.
"""

from typing import Any

import torch
from torch import Tensor, nn

from modernbert.model.config import LayerKind
from modernbert.model.encoder import Encoder
from modernbert.model.layer import ACTIVATIONS
from modernbert.model.pretrained import SavedModel
from modernbert.model.rope import rotary_table

# Added to scores that must not count. It is finite, as a row of only padding has no other scores.
_NEVER = -1e30

INPUTS = ("input_ids", "attention_mask")
_EXAMPLE = (3, 150)


class PaddedModel(nn.Module):
    """A model that takes padded token ids and a mask."""

    def __init__(self, model: SavedModel) -> None:
        """Wrap an encoder or a model with a head, with float32 weights."""
        super().__init__()
        self.model = model
        encoder: Any = getattr(model, "encoder", model)
        self.encoder: Encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Compute what `outputs` of the model names.

        Args:
            input_ids: (rows, columns) int64.
            attention_mask: (rows, columns) int64, 0 at padding, which is on the right or the left
                of the tokens.

        Returns:
            The outputs; those at padding have no meaning.
        """
        model: Any = self.model
        hidden = padded_hidden(self.encoder, input_ids, attention_mask)
        if isinstance(model, Encoder):
            return (hidden,)
        if model.is_of_texts:
            return (model.logits(_pooled(hidden, attention_mask, model.settings.pooling)),)
        # (rows x columns, width): a plain product with the vocabulary, whatever the rows
        logits = model.logits(hidden.flatten(0, 1)).unflatten(0, input_ids.shape)
        return logits.unbind(-1) if len(model.outputs) > 1 else (logits,)


def example_inputs(
    model: SavedModel,
) -> tuple[PaddedModel, tuple[Tensor, Tensor], dict[str, dict[int, Any]]]:
    """Return what torch traces a model with: the module, its inputs, and their free dimensions."""
    config: Any = model.config
    ids, mask = torch.full(_EXAMPLE, config.cls_token_id), torch.ones(_EXAMPLE, dtype=torch.int64)
    mask[1, _EXAMPLE[1] // 2 :] = 0
    free = {0: torch.export.Dim("rows"), 1: torch.export.Dim("columns")}
    return PaddedModel(model).eval(), (ids, mask), dict.fromkeys(INPUTS, free)


def padded_hidden(encoder: Encoder, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Run the encoder: (rows, columns) int64 each to (rows, columns, hidden_size)."""
    config = encoder.config
    rows, columns = input_ids.shape
    positions = torch.arange(columns, device=input_ids.device)
    biases = _biases(attention_mask != 0, positions, config.window)
    angles = {
        kind: rotary_table(positions, config.head_size, config.theta(kind), config.scaling(kind))
        for kind in set(config.layer_kinds)
    }
    hidden = encoder.embeddings(input_ids).flatten(0, 1)  # (rows x columns, hidden_size)
    for layer, kind in zip(encoder.layers, config.layer_kinds, strict=True):
        parts: Any = layer
        qkv = parts.attn.Wqkv(parts.attn_norm(hidden))
        qkv = qkv.view(rows, columns, 3, config.num_heads, config.head_size)
        attended = _attend(qkv, angles[kind], biases[kind])
        hidden = hidden + parts.attn.Wo(attended)
        halves = parts.mlp.Wi(parts.mlp_norm(hidden))
        activated, factors = halves.chunk(2, dim=-1)
        gated = ACTIVATIONS[config.activation](activated) * factors
        hidden = hidden + parts.mlp.Wo(gated)
    normed: Tensor = encoder.final_norm(hidden).unflatten(0, (rows, columns))
    return normed


def _attend(qkv: Tensor, angles: tuple[Tensor, Tensor], bias: Tensor) -> Any:
    """Attend: (rows, columns, 3, num_heads, head_size) to (rows x columns, hidden_size)."""
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (rows, heads, columns, head_size)
    query = _rotated(query, *angles) * qkv.shape[-1] ** -0.5
    scores = query @ _rotated(key, *angles).transpose(-1, -2) + bias
    attended = scores.softmax(dim=-1) @ value
    return attended.transpose(1, 2).flatten(2).flatten(0, 1)


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _biases(present: Tensor, positions: Tensor, window: int) -> dict[LayerKind, Tensor]:
    """Return what is added to the scores: 0, or `_NEVER` for keys that a query must not see.

    (rows, 1, 1, columns) for global layers, (rows, 1, columns, columns) for local ones.
    """
    keys = present[:, None, None, :]
    near = (positions[:, None] - positions).abs() <= window
    zero = torch.zeros(())
    never = torch.full((), _NEVER)
    return {
        "global": torch.where(keys, zero, never),
        "local": torch.where(keys & near, zero, never),
    }


def _pooled(hidden: Tensor, attention_mask: Tensor, pooling: str) -> Tensor:
    """Pool the hidden states: (rows, columns, width) to (rows, width)."""
    if pooling == "cls":
        return hidden[:, 0]
    weights = attention_mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
