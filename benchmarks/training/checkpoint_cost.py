"""Claim: a checkpoint of base in the background, once in ten minutes, costs under 2% of the speed.

    python -m benchmarks.training.checkpoint_cost --minutes 5

Steps of pretraining are timed while nothing is saved, then a save begins and steps go on until it
is whole, verified and on the disk; and again, as long as there is time. A save costs the time for
which it stops the training, and what the steps beside it take longer than those before it.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import command, results
from benchmarks.masked_step import masked_batch, masked_step
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize
from modernbert.training import checkpoint
from modernbert.training.background import BackgroundSaver
from modernbert.training.computation import compute_dtype
from modernbert.training.optimizer import StableAdamW, parameter_groups

RESULT = results.FOLDER / "training" / "checkpoint_cost.json"


class Save(NamedTuple):
    """What one save did to the steps around it.

    quiet_seconds: a step's median just before it.
    paused_seconds: the training stood still.
    beside_seconds: of each step that ended while it was on its way.
    seconds: until it was whole.
    """

    quiet_seconds: float
    paused_seconds: float
    beside_seconds: list[float]
    seconds: float

    @property
    def cost_seconds(self) -> float:
        """How much later the training is for it."""
        slower = sum(self.beside_seconds) - len(self.beside_seconds) * self.quiet_seconds
        return self.paused_seconds + slower


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write."""
    options = command.parser(
        __doc__,
        size=("base", "a preset"),
        tokens=(1024, "of a step, in one sequence"),
        minutes=(5.0, "no new save after these"),
        quiet_steps=(8, "before each save"),
        interval=(600.0, "seconds from save to save"),
        folder=(Path, "where to save; a temporary one when absent"),
    ).parse_args(arguments)
    found = command.measured("checkpoint_cost", measure, options, RESULT)
    paused = median(save["paused_seconds"] for save in found["saves"])
    print(
        f"{options.size}: {found['checkpoint_bytes'] / 1e9:.2f} GB, a save costs "
        f"{found['cost_seconds']:.2f} s ({paused:.2f} s of them still), every "
        f"{options.interval:.0f} s {found['share']:.2%}; {len(found['saves'])} saves"
    )
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The saves and their cost."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        saves, num_bytes = saved(options, Path(folder))
    cost = median(save.cost_seconds for save in saves)
    return {
        "model": options.size,
        "tokens_a_step": options.tokens,
        "checkpoint_bytes": num_bytes,
        "saves": [save._asdict() for save in saves],
        "cost_seconds": cost,
        "interval_seconds": options.interval,
        "share": cost / options.interval,
    }


def saved(options: argparse.Namespace, folder: Path) -> tuple[list[Save], int]:
    """The saves that fit into the time, one at least, and the size of a checkpoint."""
    model = initialize(MaskedLanguageModel(EncoderConfig.preset(options.size)), seed=0)
    optimizer = StableAdamW(parameter_groups(model, 1e-5), peak_learning_rate=1e-4)
    batch, dtype = masked_batch([options.tokens]), compute_dtype("cpu", "auto")

    def seconds() -> float:
        """Of a step of pretraining on random tokens."""
        started = time.perf_counter()
        masked_step(model, batch, dtype)
        optimizer.step()
        return time.perf_counter() - started

    saver = BackgroundSaver(folder, {})
    saves: list[Save] = []
    end = time.monotonic() + 60 * options.minutes
    seconds()  # makes the optimizer's state
    while not saves or time.monotonic() < end:
        quiet = median(seconds() for _ in range(options.quiet_steps))
        place = checkpoint.folder_of(folder, len(saves))
        saver.save(place, model, optimizer, {"step": len(saves)}, keep=1)
        beside: list[float] = []
        while not (found := saver.finished()):
            beside.append(seconds())
        saves.append(Save(quiet, found[0].paused_seconds, beside, found[0].seconds))
    # The first save also makes the memory that the later ones use again.
    return saves[1:] or saves, sum(path.stat().st_size for path in place.iterdir())


if __name__ == "__main__":
    sys.exit(main())
