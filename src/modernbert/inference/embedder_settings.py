"""How an encoder is used for embeddings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import get_args

from modernbert.errors import ConfigError, InputError
from modernbert.inference.similarity import Similarity
from modernbert.model.pooling import Pooling


@dataclass(frozen=True, kw_only=True)
class EmbedderSettings:
    """What makes one vector of a text.

    pooling: the first token's vector, or the mean of all.
    normalize: whether the model's own vectors have length 1.
    max_seqlen: the longest sequence in tokens; None for what the model reads.
    prompts: texts to put before others, by name; `query` and `document` are taken by
        `encode_query` and `encode_document`.
    default_prompt_name: of the prompt that is taken when none is asked for.
    pool_prompt: whether the prompt's tokens are pooled too.
    similarity: how vectors are compared.
    """

    pooling: Pooling = "mean"
    normalize: bool = False
    max_seqlen: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    pool_prompt: bool = True
    similarity: Similarity = "cosine"

    def __post_init__(self) -> None:
        for name, kinds in (("pooling", Pooling), ("similarity", Similarity)):
            if (got := getattr(self, name)) not in get_args(kinds):
                expected = ", ".join(get_args(kinds))
                raise ConfigError(f"{name}: got {got!r}, expected one of {expected}")
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            raise ConfigError(
                f"default_prompt_name: {self.default_prompt_name!r} is none of the prompts "
                f"({', '.join(self.prompts) or 'there are none'})"
            )

    def prompt(self, prompt: str | None, name: str | None) -> str:
        """The text to put before others: the one given, the named one, or the default.

        Raises:
            InputError: a name that the model has no prompt of.
        """
        if prompt is not None:
            return prompt
        name = self.default_prompt_name if name is None else name
        if name is not None and name not in self.prompts:
            known = ", ".join(self.prompts) or "none"
            raise InputError(f"prompt_name: got {name!r}, but the model's prompts are: {known}")
        return "" if name is None else self.prompts[name]

    def first_prompt(self, names: Iterable[str]) -> str:
        """The first of these prompts that there is, or none; the default does not count."""
        return next((self.prompts[name] for name in names if name in self.prompts), "")
