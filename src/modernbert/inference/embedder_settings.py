"""How an encoder is used for embeddings."""

from dataclasses import dataclass
from typing import get_args

from modernbert.errors import ConfigError
from modernbert.inference.prompts import Prompted
from modernbert.inference.similarity import Similarity
from modernbert.model.pooling import Poolings, TextPooling


@dataclass(frozen=True, kw_only=True)
class EmbedderSettings(Prompted):
    """What makes one vector of a text.

    Attributes:
        pooling: How the vectors of the tokens become one; several are joined, see `pool`.
        normalize: Whether the model's own vectors have length 1.
        max_seqlen: The longest sequence, in tokens; None for what the model reads.
        pool_prompt: Whether the tokens of the prompt are pooled too.
        similarity: How vectors are compared.
        truncate_dim: How many numbers of each vector are kept; None for all.
    """

    pooling: Poolings = "mean"
    normalize: bool = False
    max_seqlen: int | None = None
    pool_prompt: bool = True
    similarity: Similarity = "cosine"
    truncate_dim: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = (self.pooling,) if isinstance(self.pooling, str) else self.pooling
        checked = [("pooling", each, TextPooling) for each in kinds]
        for name, got, known in (*checked, ("similarity", self.similarity, Similarity)):
            if got not in get_args(known):
                expected = ", ".join(get_args(known))
                raise ConfigError(f"{name}: got {got!r}, expected one of {expected}")
        if not kinds:
            raise ConfigError("pooling: got none, expected one or more")

    @property
    def num_poolings(self) -> int:
        """How many vectors of the encoder's width are joined."""
        return 1 if isinstance(self.pooling, str) else len(self.pooling)
