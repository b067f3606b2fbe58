"""Claim: a text of 8,192 tokens takes a fraction of the memory that others take for it.

    python -m benchmarks.cpu.memory

Each engine runs in a process of its own: the most memory that it holds during one pass, less what
it held before it, weights included.
"""

import argparse
import ctypes
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import command, peers, results
from benchmarks.workloads import token_ids

NAMES = (
    "ours float32",
    "transformers float32",
    "ours bfloat16",
    "transformers bfloat16",
    "ours int8",
)
_TIMEOUT_SECONDS = 300


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = command.parser(
        __doc__,
        peers=(",".join(NAMES), "names of engines, by commas"),
        length=(8_192, "tokens of the one sequence"),
        only=(str, "measure this engine in this process and print a line of JSON"),
    )
    command.add_model(made, layers=10)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every engine in a process of its own and write."""
    options = parser().parse_args(arguments)
    if options.only:
        print(json.dumps(measure(options)))
    else:
        _tell(command.measured("memory", measure_all, options, results.on_this_cpu("memory")))
    return 0


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Every engine, or why there is no figure of it."""
    names = ("size", "layers", "length", "threads", "cache")
    given = [(f"--{name}", getattr(options, name)) for name in names]
    makers = {
        name: partial(
            command.in_a_process,
            "benchmarks.cpu.memory",
            "--only",
            name,
            *(each for pair in given for each in pair),
            timeout=_TIMEOUT_SECONDS,
        )
        for name in options.peers.split(",")
    }
    model = command.model_of(options).description  # made before the first engine
    found, absent = peers.built(makers)
    reasons = {name: {"absent": reason} for name, reason in absent.items()}
    return {"model": model, "length": options.length, "engines": {**found, **reasons}}


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Megabytes of one engine: with its weights before a pass, and the most above that in it."""
    torch.set_num_threads(options.threads)
    engine = peers.build(options.only, command.model_of(options), options.threads)
    engine(token_ids([64]), None)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _status("VmRSS")
    engine(token_ids([options.length]), None)
    return {"before_mb": before, "above_mb": _status("VmHWM") - before}


def _status(field: str) -> float:
    """Megabytes, from the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    line = next(line for line in lines if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024 / 1e6


def _tell(result: Mapping[str, Any]) -> None:
    print(f"one sequence of {result['length']} tokens; {result['model']}")
    for name, found in result["engines"].items():
        if "absent" in found:
            print(f"  absent: {name}: {found['absent']}")
        else:
            above, before = found["above_mb"], found["before_mb"]
            print(f"  {name:28s} {above:7.0f} MB above {before:.0f} MB")


if __name__ == "__main__":
    sys.exit(main())
