"""Section `mini`: the real model of recipes/mini.toml, some minutes at a time."""

import signal
import time
from pathlib import Path
from typing import Any

from benchmarks.cuda.bench import Bench, Figures, Rows
from modernbert.settings import load
from modernbert.tasks.pretraining.pretrain import pretrain
from modernbert.tasks.pretraining.recipe import PretrainingRecipe

RECIPE = Path("src/modernbert/recipes/mini.toml")
_MINUTES = 2.2  # with the start and the last checkpoint less than three


def mini(bench: Bench, recipe: Path = RECIPE, minutes: float = _MINUTES) -> Rows:
    """Go on with the run for some minutes; where it stands, and its held-out losses of this part.

    The recipe's own comment says how its shards are made.
    """
    del bench  # the trainer takes a GPU where there is one
    end = time.monotonic() + 60 * minutes
    losses: dict[int, float] = {}
    steps: list[tuple[int, float, float]] = []  # tokens, seconds, seconds of waiting for data

    def watch(record: dict[str, Any]) -> None:
        if record["kind"] == "evaluation":
            losses[record["tokens"]] = record["held_out_loss"]
        elif record["kind"] == "step":
            steps.append((record["tokens"], record["seconds"], record["data_wait_seconds"]))
            if time.monotonic() > end:
                signal.raise_signal(signal.SIGTERM)  # the trainer saves and stops

    result = pretrain(load(PretrainingRecipe, recipe), [watch])
    row: Figures = {"status": result.status, "step": result.progress.step}
    row["tokens"] = result.progress.tokens
    if steps:
        seconds = sum(each[1] for each in steps)
        row["tokens/s"] = (steps[-1][0] - steps[0][0]) / max(1e-9, seconds - steps[0][1])
        row["waiting for data"] = sum(each[2] for each in steps) / seconds
    curve: Rows = {f"{tokens} tokens": {"held-out loss": loss} for tokens, loss in losses.items()}
    return {"run": row, **curve}
