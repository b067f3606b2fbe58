"""Every training run that a claim needs: an arm is one way to train, once for each seed.

All runs of a seed see the same documents in the same order. A claim compares two arms seed by
seed, so that what the data and the first weights do to both falls out of the difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Corpus = Literal["mixed", "books"]

TOKENS = 1_600_000
EXTENSION_TOKENS = 600_000
GROWN_TOKENS = 1_000_000
CHECKPOINT_STEPS = 40

_BIN_TOKENS = 2_048
_LONG_BIN_TOKENS = 8_192
_LARGE = {"num_layers": 8, "hidden_size": 384, "intermediate_size": 576, "num_heads": 6}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train; `recipe` is laid over the recipe that all share, key by key.

    joined: documents of a bin see each other, as if the bin were one document.
    start: the arm of the same seed from whose model this one goes on.
    layer_map: grow the started model to this arm's size first, by this map.
    corpus: `mixed` is books and reviews in equal parts.
    """

    name: str
    about: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    joined: bool = False
    start: str | None = None
    layer_map: Literal["kind", "paper"] | None = None
    corpus: Corpus = "mixed"


def _training(tokens: int, rate: float, *, warmup: int, decay: int) -> dict[str, Any]:
    schedule = {
        "peak_learning_rate": rate,
        "warmup_tokens": warmup,
        "decay": "1-sqrt" if decay else "constant",
        "decay_tokens": decay,
    }
    return {
        "total_tokens": tokens,
        "checkpoint_every_steps": CHECKPOINT_STEPS,
        "keep_checkpoints": 8,
        "schedule": schedule,
    }


def _extension(max_seqlen: int, theta: float) -> dict[str, Any]:
    return {
        "model": {"max_seqlen": _LONG_BIN_TOKENS, "global_theta": theta},
        "packing": {"max_seqlen": max_seqlen, "bin_tokens": _LONG_BIN_TOKENS},
        "training": _training(EXTENSION_TOKENS, 5e-4, warmup=60_000, decay=300_000),
    }


_GROWN = {
    "model": {"preset": "tiny", **_LARGE},
    "training": _training(GROWN_TOKENS, 1e-3, warmup=200_000, decay=500_000),
}

ARMS = (
    Arm(name="usual", about="isolated documents, 30% masked, every third layer global"),
    Arm(name="joined", about="the same bins, each read as one document", joined=True),
    Arm(name="masked-15", about="15% masked", recipe={"masking": {"rate": 0.15}}),
    Arm(name="all-global", about="all layers global", recipe={"model": {"global_every": 1}}),
    Arm(
        name="constant",
        about="a constant rate to the end",
        recipe={"training": _training(TOKENS, 1.5e-3, warmup=200_000, decay=0)},
    ),
    Arm(
        name="extended",
        about="books at 8,192 with theta 160,000",
        start="usual",
        corpus="books",
        recipe=_extension(8_192, 160_000.0),
    ),
    Arm(
        name="not-extended",
        about="as many tokens of the same books at 1,024 with theta 10,000",
        start="usual",
        corpus="books",
        recipe=_extension(1_024, 10_000.0),
    ),
    Arm(
        name="all-global-extended",
        about="all layers global, books at 8,192 with theta 160,000",
        start="all-global",
        corpus="books",
        recipe=_extension(8_192, 160_000.0),
    ),
    Arm(name="large-random", about="8 layers x 384 from random weights", recipe=_GROWN),
    Arm(
        name="large-kind",
        about="8 layers x 384 tiled from 6 x 256, local layers from local ones",
        start="usual",
        layer_map="kind",
        recipe=_GROWN,
    ),
    Arm(
        name="large-paper",
        about="the same with the paper's map of layers",
        start="usual",
        layer_map="paper",
        recipe=_GROWN,
    ),
)


def shared_recipe(*, seed: int) -> dict[str, Any]:
    """What every arm begins from, as the mapping of a recipe file without its paths."""
    return {
        "dropout": 0.0,
        "seed": seed,
        "model": {"preset": "tiny", "seed": seed, "max_seqlen": _BIN_TOKENS},
        "packing": {"max_seqlen": 1_024, "bin_tokens": _BIN_TOKENS},
        "batch": {"bins_per_step": 1},
        "masking": {"rate": 0.3},
        "training": {
            "seed": seed,
            **_training(TOKENS, 1.5e-3, warmup=200_000, decay=800_000),
        },
    }
