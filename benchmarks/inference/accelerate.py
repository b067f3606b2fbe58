"""Claim: `modernbert.accelerate` makes a live model several times faster, with equal outputs.

    python -m benchmarks.inference.accelerate
    python -m benchmarks.inference.accelerate --layers 2 --workloads request-32 --seconds 2

The same model object of transformers, called as before on padded batches, is equal to 1e-5 at every
real token; a forward and a backward pass are timed before and after.
"""

import argparse
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks import command
from benchmarks.engines import pad
from benchmarks.models import random_model
from benchmarks.timing import interleave, speedup
from benchmarks.workloads import WORKLOADS, Workload, token_ids
from modernbert import accelerate

WITHIN = 1e-5
DEFAULT = ("request-32", "512-ragged", "uniform-padded", "web", "512-fixed")
Batch = dict[str, Tensor]


def padded(workload: Workload) -> Batch:
    """All sequences in one batch, padded on the right: (rows, columns) int64 both."""
    ids, mask = pad(token_ids(workload.lengths))
    return {"input_ids": ids, "attention_mask": mask}


def largest_difference(before: Any, after: Any, batch: Batch) -> float:
    """Of the hidden states of all real tokens."""
    real = batch["attention_mask"] != 0
    with torch.no_grad():
        first, second = (model(**batch).last_hidden_state for model in (before, after))
    return float((first - second)[real].abs().max())


def forward(model: Any, batch: Batch) -> Callable[[], object]:
    """A call without gradients."""

    def call() -> None:
        with torch.inference_mode():
            model(**batch)

    return call


def step(model: Any, batch: Batch) -> Callable[[], object]:
    """A forward and a backward pass, as in training."""
    weights = batch["attention_mask"][..., None].float()

    def call() -> None:
        model.zero_grad()
        (model(**batch).last_hidden_state * weights).sum().backward()

    return call


def measure(
    models: dict[str, Any], workload: Workload, options: argparse.Namespace
) -> dict[str, Any]:
    """The figures of one workload; nothing is timed where outputs differ."""
    batch = padded(workload)
    difference = largest_difference(models["transformers"], models["accelerated"], batch)
    row: dict[str, Any] = {
        "description": workload.description,
        "real_tokens": workload.total_tokens,
        "padded_tokens": batch["input_ids"].numel(),
        "largest_difference": difference,
    }
    if not difference < WITHIN:
        return {**row, "failed": f"outputs differ by more than {WITHIN}"}
    for name, made in (("forward", forward), ("forward_and_backward", step)):
        turns = {key: made(model, batch) for key, model in models.items()}
        for call in turns.values():
            call()
        times = interleave(
            turns,
            rounds=options.rounds,
            budget_seconds=options.seconds,
            min_turn_seconds=0.1,
            clock=command.clock(options),
        )
        row[name] = {
            **{f"{key}_seconds": round(median(value), 5) for key, value in times.items()},
            "speedup": round(speedup(times["accelerated"], times["transformers"]), 2),
        }
    return row


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Two copies of one model, of which one is accelerated, on every workload."""
    from transformers import AutoModel

    source = random_model("base", options.layers, options.cache)
    loaded = [AutoModel.from_pretrained(source.folder).eval() for _ in range(2)]
    models = {"transformers": loaded[0], "accelerated": accelerate(loaded[1])}
    rows = {}
    for name in options.workloads.split(","):
        rows[name] = measure(models, WORKLOADS[name], options)
        print(name, rows[name])
    return {"model": source.description, "workloads": rows}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a line for each workload, and write them all."""
    options = command.parser(
        __doc__,
        rounds=9,
        seconds=20,
        workloads=(",".join(DEFAULT), "by commas"),
        layers=(11, "layers, every third global"),
    ).parse_args(arguments)
    command.measured("accelerate", measure_all, options)


if __name__ == "__main__":
    main()
