"""`Prompted`: settings of a model that wants texts before others."""

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
class Prompted:
    """The prompts of a model.

    Attributes:
        prompts: Texts by name; `query` and `document` are for the two sides of a search.
        default_prompt_name: The prompt that is taken where none is asked for.
    """

    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None

    def __post_init__(self) -> None:
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            known = ", ".join(self.prompts) or "there are none"
            name = f"default_prompt_name: {self.default_prompt_name!r}"
            raise ConfigError(f"{name} is none of the prompts ({known})")

    def prompt(self, prompt: str | None = None, name: str | None = None) -> str:
        """Choose what to put before each text: the one given, the named one, or the default.

        Raises:
            InputError: A name that the model has no prompt of.
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

    def side_prompt(self, side: Side) -> str:
        """The prompt of one side of a search; the default does not count."""
        return self.first_prompt(_NAMES[side])

    def of_side(self, side: Side, options: Any) -> Any:
        """Options with the prompt of one side, unless they name another."""
        if options.get("prompt") is not None or options.get("prompt_name") is not None:
            return options
        return {**options, "prompt": self.side_prompt(side)}
