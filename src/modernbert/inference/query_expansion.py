"""Hidden states of queries whose added [MASK] tokens see the query and are seen by nobody.

ColBERT gets them from padding: padded positions are computed, but masked as keys. A packed batch
has no such positions, so the queries that were filled up, all of one length, are computed here as
(queries, length) with a mask. They are short, so this costs little.
"""

import torch
from torch import Tensor
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.model.encoder import Encoder
from modernbert.model.layer import Layer
from modernbert.model.rope import RotaryTable, rotary_table, rotate


def hidden_of_queries(encoder: Encoder, batch: PackedBatch, unseen: Tensor) -> Tensor:
    """(total_tokens, hidden_size), like `encoder(batch)`, but the unseen tokens are no keys.

    encoder: whose layers are not packed for inference.
    unseen: (total_tokens,) bool; sequences with any are all of one length.
    """
    has_unseen = torch.zeros(batch.num_sequences, dtype=torch.bool, device=unseen.device)
    has_unseen[batch.sequence_ids[unseen]] = True
    if not has_unseen.any():
        plain: Tensor = encoder(batch)
        return plain
    rows = has_unseen[batch.sequence_ids]
    token_ids = batch.token_ids[rows].unflatten(0, (int(has_unseen.sum()), -1))
    inner = _hidden_of_block(encoder, token_ids, ~unseen[rows].view_as(token_ids))
    if rows.all():
        return inner
    others = [ids for ids, skip in zip(batch.split(), has_unseen.tolist(), strict=True) if not skip]
    outer = encoder(PackedBatch.from_sequences(others, device=rows.device))
    hidden = inner.new_empty(batch.total_tokens, inner.shape[1])
    hidden[rows], hidden[~rows] = inner, outer.to(inner.dtype)
    return hidden


def _hidden_of_block(encoder: Encoder, token_ids: Tensor, seen: Tensor) -> Tensor:
    """(rows x length, hidden_size).

    token_ids: (rows, length) int64.
    seen: (rows, length) bool; which tokens are keys.
    """
    config = encoder.config
    num_rows, length = token_ids.shape
    places = torch.arange(length, device=token_ids.device)
    near = (places[:, None] - places).abs() <= config.window
    masks = {}
    for kind in set(config.layer_kinds):
        keys = (
            seen[:, None, :] & near if kind == "local" else seen[:, None, :].expand(-1, length, -1)
        )
        masks[kind] = (keys | ~keys.any(-1, keepdim=True))[:, None]  # (rows, 1, length, length)
    tables = {
        kind: rotary_table(
            places.repeat(num_rows), config.head_size, config.theta(kind), config.scaling(kind)
        )
        for kind in set(config.layer_kinds)
    }
    hidden = encoder.embeddings(token_ids.flatten())
    for layer, kind in zip(encoder.layers, config.layer_kinds, strict=True):
        assert isinstance(layer, Layer)
        hidden = hidden + _attended(layer, hidden, tables[kind], masks[kind])
        hidden = hidden + layer.mlp(layer.mlp_norm(hidden))
    normed: Tensor = encoder.final_norm(hidden)
    return normed


def _attended(layer: Layer, hidden: Tensor, table: RotaryTable, mask: Tensor) -> Tensor:
    attention = layer.attn
    qkv = attention.Wqkv(layer.attn_norm(hidden)).unflatten(1, (3, attention.num_heads, -1))
    query, key, value = qkv.unbind(1)  # (rows x length, num_heads, head_size)
    query, key, value = (
        x.unflatten(0, (len(mask), -1)).transpose(1, 2)
        for x in (rotate(query, table), rotate(key, table), value)
    )  # (rows, num_heads, length, head_size)
    attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    output: Tensor = attention.Wo(attended.transpose(1, 2).flatten(2).flatten(0, 1))
    return output
