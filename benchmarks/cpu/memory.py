"""Claim: a text of 8,192 tokens takes a fraction of the memory that others take for it.

    python -m benchmarks.cpu.memory

Each engine runs in a process of its own: the most memory that it holds during one pass, less what
it held before it, weights included.
"""

import argparse
import ctypes
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    made = command.parser(__doc__ or "", rounds=1, seconds=300)
    made.add_argument("--peers", default=",".join(NAMES), help="names of engines, by commas")
    made.add_argument("--length", type=int, default=8_192, help="tokens of the one sequence")
    made.add_argument("--only", help="measure this engine in this process and print a line of JSON")
    command.add_model(made, layers=10)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every engine in a process of its own and write."""
    options = parser().parse_args(arguments)
    if options.only:
        print(json.dumps(measure(options)))
        return 0
    around = results.surroundings(num_threads=options.threads)
    result = {
        "benchmark": "memory",
        **around,
        "model": command.model_of(options).description,
        "length": options.length,
        "engines": {name: _in_a_process(name, options) for name in options.peers.split(",")},
    }
    results.write(options.out or results.on_this_cpu("memory"), result)
    _tell(result)
    return 0


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Megabytes of one engine: with its weights before a pass, and the most above that in it."""
    command.use_threads(options)
    engine = peers.build(options.only, command.model_of(options), options.threads)
    engine.encode(token_ids([64]), None)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _status("VmRSS")
    engine.encode(token_ids([options.length]), None)
    return {"before_mb": before, "above_mb": _status("VmHWM") - before}


def _in_a_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    arguments = ["--only", name, "--size", options.size, "--layers", str(options.layers)]
    arguments += ["--length", str(options.length), "--threads", str(options.threads)]
    arguments += ["--cache", str(options.cache)]
    if options.model:
        arguments += ["--model", str(options.model)]
    try:
        answer = subprocess.run(
            [sys.executable, "-m", __spec__.name, *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"absent": f"took more than {_TIMEOUT_SECONDS} seconds"}
    if answer.returncode:
        lines = answer.stderr.strip().splitlines()
        return {"absent": (lines[-1] if lines else f"exit status {answer.returncode}")[:200]}
    found: dict[str, Any] = json.loads(answer.stdout.strip().splitlines()[-1])
    return found


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
