"""What the scripts share: options, a result with what stands beside it, and processes."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import results
from benchmarks.models import CACHE, Model, random_model
from modernbert.model.config import PRESETS


def bare_parser(description: str | None, **options: tuple[Any, str]) -> argparse.ArgumentParser:
    """A command line that shows its script's docstring; see `add` for the options."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add(made, **options)
    return made


def parser(
    description: str | None,
    *,
    rounds: int | None = None,
    seconds: float | None = None,
    **options: tuple[Any, str],
) -> argparse.ArgumentParser:
    """`bare_parser` with what a result needs: with how many threads, and where to write.

    rounds: of a script that times everyone in turn; seconds: of one that ends after these.
    """
    made = bare_parser(description)
    if rounds is not None:
        add(made, rounds=(rounds, "turns of everyone, at most"))
    if seconds is not None:
        text = "count the CPU's time and not the clock's: for a machine with other work, one thread"
        add(made, seconds=(seconds, f"no new round that would end after these ({seconds:g})"))
        add(made, cpu_time=(False, text))
    add(
        made,
        threads=(os.cpu_count(), "threads of everyone"),
        cache=(CACHE, "folder of models, exports and data that are made once"),
    )
    made.add_argument("--out", "--output", type=Path, help="file of the result")
    add(made, **options)
    return made


def add(made: argparse.ArgumentParser, **options: tuple[Any, str]) -> None:
    """Add options by their names, each with its default, whose type it takes, and its help.

    A type alone has no default, and False is a switch.
    """
    for name, (default, text) in options.items():
        flag = f"--{name.replace('_', '-')}"
        if default is False:
            made.add_argument(flag, action="store_true", help=text)
        elif isinstance(default, type):
            made.add_argument(flag, type=default, help=text)
        else:
            kind = Path if isinstance(default, Path) else type(default)
            made.add_argument(flag, type=kind, default=default, help=text)


def add_model(made: argparse.ArgumentParser, *, layers: int) -> None:
    """Options that say which model."""
    sizes = [name for name in PRESETS if name in ("tiny", "17m", "32m", "68m", "base", "large")]
    made.add_argument("--size", choices=sizes, default="base", help="widths of the model")
    add(made, layers=(layers, "layers, every third global"))


def model_of(options: argparse.Namespace) -> Model:
    """The model that the options ask for."""
    return random_model(options.size, options.layers, options.cache)


def clock(options: argparse.Namespace) -> Callable[[], float]:
    """What seconds are counted by: the clock, or this process's use of the CPU."""
    return time.process_time if options.cpu_time else time.perf_counter


def measured(
    name: str,
    measure: Callable[[argparse.Namespace], Mapping[str, Any]],
    options: argparse.Namespace,
    path: Path | None = None,
) -> dict[str, Any]:
    """Measure with the threads asked for, and write the result if there is a place for it.

    path: where a result is written that no option gives a place; None writes none.
    """
    torch.set_num_threads(options.threads)
    around = results.surroundings(num_threads=options.threads)  # before anything is measured
    result = {"benchmark": name, **around, **measure(options)}
    if (place := options.out or path) is not None:
        results.write(place, result)
    return result


def run_module(module: str, *arguments: object, timeout: float | None = None) -> str:
    """What a module prints in a process of its own.

    Raises:
        RuntimeError: The process ended with an error, whose last line the message begins with.
        subprocess.TimeoutExpired: It took too long.
    """
    command = [sys.executable, "-W", "ignore", "-m", module, *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if answer.returncode:
        said = answer.stderr.strip() or f"exit status {answer.returncode}"
        raise RuntimeError(f"{said.splitlines()[-1]}\n{said[-2_000:]}")
    return answer.stdout


def in_a_process(module: str, *arguments: object, timeout: float | None = None) -> Any:
    """What a module prints as JSON in its last line; see `run_module`."""
    return json.loads(run_module(module, *arguments, timeout=timeout).strip().splitlines()[-1])


class Job(NamedTuple):
    """A command that leaves a file when it ends, and what it prints in another."""

    name: str
    command: list[str]
    out: Path
    log: Path


def run_missing(jobs: Iterable[Job], *, minutes: float) -> int:
    """Run the jobs whose files are not there, one after another; how many failed.

    Everything can be stopped at any moment and taken up by the same call.

    minutes: no job begins after these.
    """
    end, failed = time.monotonic() + 60 * minutes, 0
    for job in jobs:
        if job.out.exists() or time.monotonic() > end:
            continue
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("wb") as log:
            ended = subprocess.run(job.command, stdout=log, stderr=log).returncode
        print(f"{job.name}: ended with {ended}", flush=True)
        failed += ended != 0
    return failed
