"""How a model of one vector a token is used: markers, lengths, expansion, and what is left out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from modernbert.errors import ConfigError, InputError

Side = Literal["query", "document"]
ExpansionKind = Literal["fixed", "min"]
MultiVectorSimilarity = Literal["maxsim", "meanmaxsim"]


@dataclass(frozen=True, kw_only=True)
class QueryExpansion:
    """[MASK] tokens at the end of short queries, whose vectors count too.

    length: how many tokens a query is filled up to.
    strategy: `fixed` cuts longer queries there, `min` leaves them as they are.
    attend: whether the query's own tokens see the added ones. Where not, as in ColBERT, these see
        the query's tokens and nobody sees them.
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

    prompts: the texts, or tokens, that mark a `query` and a `document`.
    max_seqlen: the longest sequence in tokens; None for what the model reads.
    query_max_seqlen, document_max_seqlen: the same for one side, where it is less.
    expansion: of queries; None for none.
    skiplist: tokens whose vectors are left out, such as punctuation.
    skiplist_sides: of which side.
    normalize: whether the vectors have length 1.
    similarity: the sum of the best products of each query token, or their mean.
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
        """What is put before each text of a side."""
        names = ("query",) if side == "query" else ("document", "passage", "corpus")
        return next((self.prompts[name] for name in names if name in self.prompts), "")

    def longest(self, side: Side, limit: int) -> int:
        """How many tokens of a text of this side are read, of at most `limit`.

        Raises:
            InputError: an expansion to more than these.
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
