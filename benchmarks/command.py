"""What the scripts' command lines share."""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.models import CACHE, Model, random_model, trained_model
from modernbert.model.config import PRESETS


def parser(
    description: str, *, rounds: int, seconds: float | None = None
) -> argparse.ArgumentParser:
    """Options of every script: how long to measure, with how many threads, and where to write."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rounds", type=int, default=rounds, help="turns of everyone, at most")
    if seconds is not None:
        text = f"no new round that would end after these ({seconds:g})"
        made.add_argument("--seconds", type=float, default=seconds, help=text)
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of everyone")
    text = "count the CPU's time and not the clock's: for a machine with other work, one thread"
    made.add_argument("--cpu-time", action="store_true", help=text)
    made.add_argument("--out", type=Path, help="file of the result; by the row's name when absent")
    made.add_argument("--cache", type=Path, default=CACHE, help="folder of models and exports")
    return made


def add_model(made: argparse.ArgumentParser, *, layers: int) -> None:
    """Options that say which model."""
    sizes = [name for name in PRESETS if name in ("tiny", "17m", "32m", "68m", "base", "large")]
    made.add_argument("--size", choices=sizes, default="base", help="widths of the model")
    made.add_argument("--layers", type=int, default=layers, help="layers, every third global")
    made.add_argument(
        "--model", type=Path, help="a trained model folder in place of random weights"
    )


def model_of(options: argparse.Namespace) -> Model:
    """The model that the options ask for."""
    if options.model is not None:
        return trained_model(options.model, options.cache)
    return random_model(options.size, options.layers, options.cache)


def use_threads(options: argparse.Namespace) -> None:
    """Let torch, and with it our kernels, use the threads asked for."""
    torch.set_num_threads(options.threads)


def clock(options: argparse.Namespace) -> Callable[[], float]:
    """What seconds are counted by: the clock, or this process's use of the CPU."""
    return time.process_time if options.cpu_time else time.perf_counter
