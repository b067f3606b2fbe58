"""Claim: nobody encodes faster on this CPU, at any mix of lengths, and the output is the same.

    python -m benchmarks.cpu.encoding --workload 512-ragged

Everyone is built from the same weights. Before anything is timed each output is compared with
transformers in float32; then all take turns. Times are those of whole calls: lists of token ids in,
hidden states of every token out. Libraries that take texts are in `inference/embedding.py`.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks import command, peers, results
from benchmarks.cpu import products
from benchmarks.cpu.comparison import speedups, tell, timings
from benchmarks.engines import Distance, Encode, Sequences, distance
from benchmarks.models import Model
from benchmarks.timing import best_batch_size, interleave
from benchmarks.workloads import WORKLOADS, Workload, token_ids
from modernbert.model.config import flops_per_token

REFERENCE = "transformers float32"
_CHECKED_LENGTHS = {False: (512, 129, 64, 7, 1), True: (1_500, 129, 65, 1)}
_FLOAT32_WITHIN, _COSINE_FROM = 1e-5, 0.99
_TURN_SECONDS = 0.3  # short calls are repeated: requests, and products by themselves


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = command.parser(
        __doc__,
        rounds=5,
        seconds=240,
        peers=(str, "some of the engines, by commas; all that fit when absent"),
        sequences=(int, "the first so many of the workload, at most"),
        prepare=(False, "only make the models and exports"),
    )
    made.add_argument("--workload", choices=WORKLOADS, default="512-fixed")
    command.add_model(made, layers=11)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one row and write it; 1 if an output of ours is not equal enough."""
    options = parser().parse_args(arguments)
    if options.prepare:
        *_, absent = _engines(options)
        print(*(f"{name}: {reason}" for name, reason in absent.items()), sep="\n")
        return 0
    prefix = "" if options.size == "base" else f"{options.size}-"
    path = results.on_this_cpu(f"{prefix}{options.workload}")
    result = command.measured("encoding", measure_row, options, path)
    tell(f"{result['workload']['description']}; {result['model']}", result)
    return 0 if all(result["checks"].values()) else 1


def measure_row(options: argparse.Namespace) -> dict[str, Any]:
    """Compare everyone's outputs, then time them if ours are equal enough."""
    workload, model, engines, absent = _engines(options)
    absent |= {} if options.peers else peers.left_out(workload)
    distances, checks = check(engines, workload, absent)
    found = {
        "model": model.description,
        "workload": {**asdict(workload), "total_tokens": workload.total_tokens},
        "checks": checks,
        "distance_from_transformers_float32": {
            name: asdict(each) for name, each in distances.items()
        },
        "absent": absent,
        "not_restricted": peers.not_restricted(engines),
    }
    is_equal = all(checks.values())
    return {**found, **measure(engines, workload, model, options)} if is_equal else found


def _engines(
    options: argparse.Namespace,
) -> tuple[Workload, Model, dict[str, Encode], dict[str, str]]:
    """What is encoded, the model, who encodes, and why others do not."""
    torch.set_num_threads(options.threads)
    workload = WORKLOADS[options.workload].first(options.sequences)
    model = command.model_of(options)
    names = options.peers.split(",") if options.peers else peers.engines_for(workload)
    makers = {name: partial(peers.build, name, model, options.threads) for name in names}
    return workload, model, *peers.built(makers)


def check(
    engines: dict[str, Encode], workload: Workload, absent: dict[str, str]
) -> tuple[dict[str, Distance], dict[str, bool]]:
    """Everyone's distance from transformers in float32, and whether ours is small enough.

    An engine that fails here goes from `engines` to `absent`.
    """
    sequences = token_ids(_CHECKED_LENGTHS[workload.is_long], seed=1)
    pads = workload.batching == "one" or not workload.is_long
    size = None if pads else 1
    outputs = {}
    for name in list(engines):
        try:
            outputs[name] = engines[name](sequences, size)
        except Exception as error:  # whatever another library raises
            absent[name] = peers.reason(error)
            del engines[name]
    if REFERENCE not in outputs:
        return {}, {}
    distances = {name: distance(output, outputs[REFERENCE]) for name, output in outputs.items()}
    return distances, _checks(distances)


def _checks(distances: Mapping[str, Distance]) -> dict[str, bool]:
    checks = {}
    if ours := distances.get("ours float32"):
        checks["float32 within 1e-5"] = ours.max_error <= _FLOAT32_WITHIN
    theirs = [
        each.rms_error
        for name in ("transformers bfloat16", "transformers autocast")
        if (each := distances.get(name))
    ]
    if (ours := distances.get("ours bfloat16")) and theirs:
        checks["bfloat16 no further off than transformers"] = ours.rms_error <= min(theirs)
    if ours := distances.get("ours int8"):
        checks["int8 cosine at least 0.99"] = ours.min_cosine >= _COSINE_FROM
    return checks


def measure(
    engines: Mapping[str, Encode], workload: Workload, model: Model, options: argparse.Namespace
) -> dict[str, Any]:
    """Times of everyone, with the batch size that each is fastest with."""
    sequences = token_ids(workload.lengths)
    sizes = {
        name: _best_batch_size(name, engine, workload, sequences)
        for name, engine in engines.items()
    }
    turns: dict[str, Callable[[], object]] = {
        name: partial(engine, sequences, sizes[name]) for name, engine in engines.items()
    }
    all_seconds = interleave(
        turns | products.turns(model.config),
        rounds=options.rounds,
        budget_seconds=options.seconds,
        min_turn_seconds=_TURN_SECONDS,
        clock=command.clock(options),
    )
    seconds = products.without(all_seconds)
    speeds = products.gflops(all_seconds, model.config)
    timed = timings(seconds, workload.total_tokens)
    return {
        "timings": {name: {**each, "batch_size": sizes[name]} for name, each in timed.items()},
        "speedups": speedups(seconds),
        "product_gflops": speeds,
        "share_of_ceiling": _shares(seconds, workload, model, speeds),
    }


def _best_batch_size(
    name: str, engine: Encode, workload: Workload, sequences: Sequences
) -> int | None:
    """Tried once each, after a short piece to warm up."""
    engine([sequences[0][:512]], None)
    choices = (None,) if name.startswith("ours") else workload.batch_sizes()
    return best_batch_size(partial(engine, sequences), choices)


def _shares(
    seconds: Mapping[str, Sequence[float]],
    workload: Workload,
    model: Model,
    speeds: dict[str, float],
) -> dict[str, float]:
    """Arithmetic done a second by each of ours, over that of products alone."""
    operations = sum(length * flops_per_token(model.config, length) for length in workload.lengths)
    return {
        name: operations / median(times) / 1e9 / products.highest(speeds, name.split()[-1])
        for name, times in seconds.items()
        if name.startswith("ours")
    }


if __name__ == "__main__":
    sys.exit(main())
