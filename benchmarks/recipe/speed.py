"""Claim: every third layer global trains as fast at 8,192 tokens as at 1,024, all global does not.

    python -m benchmarks.recipe.speed

A step is the forward and the backward of the masked-token loss of one bin of 8,192 tokens, at the
tiny size of the other claims and at the 32M size, in turn A B A B.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks import command, results
from benchmarks.masked_step import masked_batch, masked_step
from benchmarks.timing import interleave
from modernbert.model.config import EncoderConfig, layer_kinds
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize

_BIN_TOKENS = 8_192
_MASKED_SHARE = 0.3
_SIZES = {"tiny": 8_192, "32m": 50_368}


def _case(size: str, *, every: int, length: int) -> Callable[[], object]:
    preset = EncoderConfig.preset(size, vocab_size=_SIZES[size])
    kinds = layer_kinds(preset.num_layers, global_every=every)
    config = EncoderConfig.preset(size, vocab_size=_SIZES[size], layer_kinds=kinds)
    model = initialize(MaskedLanguageModel(config), seed=0).train()
    lengths = [length] * (_BIN_TOKENS // length)
    batch = masked_batch(lengths, share=_MASKED_SHARE, vocab_size=config.vocab_size)
    return partial(masked_step, model, batch, torch.bfloat16)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step of every size, length and pattern of layers."""
    cases = {
        f"{size}, {'every third' if every == 3 else 'all'} global, {length}": _case(
            size, every=every, length=length
        )
        for size in options.sizes.split(",")
        for length in (1_024, 8_192)
        for every in (3, 1)
    }
    timings = interleave(cases, rounds=options.rounds, budget_seconds=options.seconds)
    speeds = {name: _BIN_TOKENS / median(each) for name, each in timings.items()}
    for name, speed in speeds.items():
        print(f"{name:40s} {speed:8,.0f} tokens/s")
    found = {"precision": "bfloat16", "bin_tokens": _BIN_TOKENS}
    return {**found, "seconds": timings, "tokens_per_second": speeds}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the figures."""
    made = command.parser(__doc__, rounds=5, seconds=120, sizes=("tiny,32m", "by commas"))
    path = results.FOLDER / "recipe" / "speed.json"
    command.measured("speed", measure, made.parse_args(arguments), path)


if __name__ == "__main__":
    main()
