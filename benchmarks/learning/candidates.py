"""Ways to train, by name: tables of `candidates.toml`, or recipe files that anybody enters.

A candidate is a recipe without its paths. One with `based_on` is laid over another, key by key. Its
numbers of tokens are those of its own `total_tokens`, all phases together; for a budget all of them
are scaled alike, so that a warm-up of a tenth stays a tenth.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modernbert.tasks.pretraining.recipe_tables import merge

FILE = Path(__file__).with_name("candidates.toml")
PEERS = {
    "transformers-padded": "transformers' Trainer on padded rows, AdamW, linear decay",
    "transformers-blocks": "transformers' Trainer in blocks of 512, AdamW, linear decay",
}
_PATHS = ("output", "tokenizer", "sources", "evaluation", "averaging")
_NUMBERS_OF_TOKENS = ("total_tokens", "warmup_tokens", "decay_tokens", "tokens")


def candidates() -> dict[str, Any]:
    """All tables of the file, by name."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def about(name: str) -> str:
    """What a candidate or a peer is, in a few words; nothing of a recipe file."""
    peer, _, _ = name.partition("@")
    return PEERS.get(peer) or str(candidates().get(name, {}).get("about", ""))


def is_peer(name: str) -> bool:
    """Whether a name is that of a peer and its rate."""
    return name.partition("@")[0] in PEERS


def named(name: str) -> dict[str, Any]:
    """The table of a candidate, or of a recipe file; what it is based on lies under it.

    Raises:
        KeyError: There is neither a candidate nor a file of the name.
    """
    if name.endswith(".toml"):
        table = tomllib.loads(Path(name).read_text(encoding="utf-8"))
        return {key: value for key, value in table.items() if key not in _PATHS}
    table = dict(candidates()[name])
    below = table.pop("based_on", None)
    table.pop("about", None)
    if below is None:
        return table
    return merge(named(below), table)


def recipe_table(table: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """A candidate's table with its numbers of tokens scaled to a budget."""
    return dict(_scaled(table, tokens / own_tokens(table)))


def own_tokens(table: Mapping[str, Any]) -> int:
    """The tokens of all phases of a candidate's table.

    >>> short = {"training": {"total_tokens": 2}}
    >>> own_tokens({"training": {"total_tokens": 5}, "phases": [{}, short]})
    7
    """
    phases = [merge(table, each) for each in table.get("phases", [{}])]
    return sum(int(each["training"]["total_tokens"]) for each in phases)


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, Mapping):
        return {
            key: round(factor * each) if key in _NUMBERS_OF_TOKENS else _scaled(each, factor)
            for key, each in value.items()
        }
    return [_scaled(each, factor) for each in value] if isinstance(value, list) else value
