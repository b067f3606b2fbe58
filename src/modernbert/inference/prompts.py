"""`Prompts`: the texts that a model wants before others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from modernbert.errors import ConfigError, InputError

Side = Literal["query", "document"]


_NAMES: Mapping[Side, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The prompts of a model.

    Attributes:
        texts: By name; `query` and `document` are for the two sides of a search.
        default_name: Of the one that is taken where none is asked for.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    default_name: str | None = None

    def __post_init__(self) -> None:
        if self.default_name is not None and self.default_name not in self.texts:
            known = ", ".join(self.texts) or "there are none"
            raise ConfigError(
                f"default_prompt_name: {self.default_name!r} is none of the prompts ({known})"
            )

    def text(self, prompt: str | None = None, name: str | None = None) -> str:
        """Choose what to put before each text: the one given, the named one, or the default.

        Raises:
            InputError: A name that the model has no prompt of.
        """
        if prompt is not None:
            return prompt
        name = self.default_name if name is None else name
        if name is not None and name not in self.texts:
            known = ", ".join(self.texts) or "none"
            raise InputError(f"prompt_name: got {name!r}, but the model's prompts are: {known}")
        return "" if name is None else self.texts[name]

    def first(self, names: Iterable[str]) -> str:
        """The first of these prompts that there is, or none; the default does not count."""
        return next((self.texts[name] for name in names if name in self.texts), "")

    def side(self, side: Side) -> str:
        """The prompt of one side of a search."""
        return self.first(_NAMES[side])

    def of_side(self, side: Side, options: Any) -> Any:
        """Options with the prompt of one side, unless they name another."""
        if options.get("prompt") is not None or options.get("prompt_name") is not None:
            return options
        return {**options, "prompt": self.side(side)}
