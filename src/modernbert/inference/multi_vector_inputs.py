"""How queries and documents become token ids, and which of their tokens have vectors that count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.errors import ConfigError, InputError
from modernbert.inference.embedder_folder import Side
from modernbert.inference.inputs import EncodedText, TextEncoder
from modernbert.model.encoder import Encoder
from modernbert.model.layer import Layer
from modernbert.model.rope import RotaryTable, rotary_tables, rotate
from modernbert.tokenizer.tokenizer import Tokenizer

ExpansionKind = Literal["fixed", "min"]
MultiVectorSimilarity = Literal["maxsim", "meanmaxsim"]


@dataclass(frozen=True, kw_only=True)
class QueryExpansion:
    """[MASK] tokens at the end of short queries, whose vectors count too.

    Attributes:
        length: How many tokens a query is filled up to.
        strategy: `fixed` cuts longer queries there, `min` leaves them as they are.
        attend: Whether the query's own tokens see the added ones. Where not, as in ColBERT, these
            see the query's tokens and nobody sees them.
    """

    length: int
    strategy: ExpansionKind = "fixed"
    attend: bool = False

    def __post_init__(self) -> None:
        if self.length < 4:
            raise ConfigError(f"query_expansion: length: got {self.length}, expected 4 or more")
        if self.strategy not in get_args(ExpansionKind):
            raise ConfigError(
                f"query_expansion: strategy: got {self.strategy!r}, expected fixed or min"
            )


@dataclass(frozen=True, kw_only=True)
class MultiVectorSettings:
    """What makes the vectors of a text.

    Attributes:
        prompts: The texts, or tokens, that mark a `query` and a `document`.
        max_seqlen: The longest sequence in tokens; None for what the model reads.
        query_max_seqlen: The same for one side, where it is less.
        document_max_seqlen: As `query_max_seqlen`.
        expansion: Of queries; None for none.
        skiplist: Tokens whose vectors are left out, such as punctuation.
        skiplist_sides: Of which side.
        normalize: Whether the vectors have length 1.
        similarity: The sum of the best products of each query token, or their mean.
    """

    prompts: Mapping[str, str] = field(default_factory=dict)
    max_seqlen: int | None = None
    query_max_seqlen: int | None = None
    document_max_seqlen: int | None = None
    expansion: QueryExpansion | None = None
    skiplist: tuple[str, ...] = ()
    skiplist_sides: tuple[str, ...] = ("document",)
    normalize: bool = True
    similarity: MultiVectorSimilarity = "maxsim"

    def __post_init__(self) -> None:
        if self.similarity not in get_args(MultiVectorSimilarity):
            raise ConfigError(f"similarity: got {self.similarity!r}, expected maxsim or meanmaxsim")
        for name in ("query_max_seqlen", "document_max_seqlen"):
            value = getattr(self, name)
            if value is not None and value < 4:
                raise ConfigError(f"{name}: got {value}, expected 4 or more")

    def prompt(self, side: Side) -> str:
        """Return what is put before each text of a side."""
        names = ("query",) if side == "query" else ("document", "passage", "corpus")
        return next((self.prompts[name] for name in names if name in self.prompts), "")

    def longest(self, side: Side, limit: int) -> int:
        """Return how many tokens of a text of this side are read, of at most `limit`.

        Raises:
            InputError: An expansion to more than these.
        """
        if side == "document":
            return min(limit, self.document_max_seqlen or limit)
        if self.expansion is None:
            return min(limit, self.query_max_seqlen or limit)
        filled = self.expansion.length
        if filled > limit:
            raise InputError(
                f"query_expansion: fills queries up to {filled} tokens, but the model reads {limit}"
            )
        if self.expansion.strategy == "fixed":
            return filled
        return max(filled, min(limit, self.query_max_seqlen or limit))


class SideEncoder:
    """Texts of one side to token ids, the marker before each and the expansion behind it.

    Args:
        limit: The longest sequence that the model reads, in tokens.

    Raises:
        InputError: Lengths that the model cannot read.
    """

    def __init__(
        self, tokenizer: Tokenizer, settings: MultiVectorSettings, side: Side, limit: int
    ) -> None:
        longest, prompt = settings.longest(side, limit), settings.prompt(side)
        self._encode = TextEncoder(tokenizer, longest, prompt=prompt, takes_pairs=False)
        self._mask_token_id = tokenizer.mask_token_id
        expansion = settings.expansion if side == "query" else None
        self._length = 0 if expansion is None else expansion.length

    def __call__(self, texts: Sequence[str]) -> list[EncodedText]:
        """The ids of each text."""
        return [self._expanded(each) for each in self._encode(texts)]

    def _expanded(self, text: EncodedText) -> EncodedText:
        missing = self._length - len(text.token_ids)
        if missing <= 0:
            return text
        return EncodedText(text.token_ids + missing * [self._mask_token_id], text.is_truncated)


def skipped_token_ids(tokenizer: Tokenizer, settings: MultiVectorSettings, side: Side) -> list[int]:
    """Return the ids whose vectors are left out on a side: those of words that are one token."""
    if side not in settings.skiplist_sides:
        return []
    found = (tokenizer.token_to_id(word) for word in settings.skiplist)
    return [token_id for token_id in found if token_id is not None]


def counted(batch: PackedBatch, skipped: Tensor) -> Tensor:
    """Return which tokens have a vector that counts, (total_tokens,) bool.

    Args:
        batch: The sequences, packed one after another.
        skipped: (num_ids,) int64.
    """
    return ~torch.isin(batch.token_ids, skipped)


def expanded(batch: PackedBatch, sep_token_id: int) -> Tensor:
    """Return which tokens are expansions, behind the last [SEP]: (total_tokens,) bool."""
    places = torch.arange(batch.total_tokens, device=batch.token_ids.device)
    seps = torch.where(batch.token_ids == sep_token_id, places, -1)
    last = places.new_full((batch.num_sequences,), -1)
    last = last.scatter_reduce(0, batch.sequence_ids, seps, "amax")
    return places > last[batch.sequence_ids]


def hidden_of_queries(encoder: Encoder, batch: PackedBatch, unseen: Tensor) -> Tensor:
    """Compute `encoder(batch)`, (total_tokens, hidden_size), with unseen tokens as no keys.

    ColBERT gets them from padding: padded positions are computed, but masked as keys. A packed
    batch has no such positions, so the queries that were filled up, all of one length, are computed
    here as (queries, length) with a mask. They are short, so this costs little.

    Args:
        encoder: One whose layers are not packed for inference.
        batch: The encoded queries, with their masks for expansion.
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
    """Compute the final hidden states of queries of one length, (rows x length, hidden_size).

    Args:
        encoder: The encoder whose layers are called one by one.
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
        masks[kind] = keys[:, None]  # (rows, 1, length, length)
    tables = rotary_tables(config, places.repeat(num_rows))
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
    # A token without keys, such as one far behind a short query, attends to nothing. Some kernels
    # give NaN for those, so they are computed with all keys and then set to 0.
    has_keys = mask.any(-1, keepdim=True)
    attended = has_keys * functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask | ~has_keys
    )
    output: Tensor = attention.Wo(attended.transpose(1, 2).flatten(2).flatten(0, 1))
    return output
