"""Claim: the loss that transformers.Trainer has after 20 minutes comes in a third of the time.

    python -m benchmarks.cpu.time_to_loss --tune     learning rates, by tokens: any machine will do
    python -m benchmarks.cpu.time_to_loss            the comparison, by time: a quiet machine

One small model (6 layers of width 256, 16,384 entries), one text, one tokenizer, one first state,
30% masked in training and 15% in every evaluation, the same batches; see `text` and `pretrainings`.

- `transformers padded`: pieces of documents of at most 512 tokens in padded rows, all logits;
- `transformers blocks`: blocks of 512 without padding, logits of masked rows (`sparse_prediction`);
- `ours`.

The first trains for 20 minutes and sets the loss. Time to that loss is, for the others, the time
of the shortest run that reaches it with its schedule at its end; it is searched for, from a guess
on, among budgets that are a quarter apart. A run is a process of its own and is kept when it ends,
so that the command can be stopped and goes on where it was.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import command, results
from benchmarks.cpu.pretrainings import SYSTEMS, Budget, Trained
from benchmarks.python_text import Text

OURS, PADDED, BLOCKS = SYSTEMS
FRACTIONS = (0.08, 0.1, 0.125, 0.16, 0.2, 0.25, 0.32, 0.4, 0.5, 0.63, 0.8, 1.0)
_EXPECTED = {OURS: 0.25, BLOCKS: 0.4}  # fractions; where the search begins
_MINUTES = 20.0
_EVALUATIONS = 8
_BESIDES_SECONDS = 90  # of a run: its start, its trial and its evaluations
_FIRST_RATE = 1e-3
_STEP_SIZES = (2_048, 4_096)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = command.parser(
        __doc__,
        rounds=1,
        seconds=60 * 22,
        minutes=(_MINUTES, "that set the loss"),
        tune=(False, "find the learning rates and stop"),
        tokens=(400_000, "of each run of --tune"),
        rates=(Path, "file of the rates, beside the results if absent"),
    )
    made.add_argument("--one", help=argparse.SUPPRESS)  # a run in this process, as JSON
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Tune, or compare as long as there is time, or do one run; 0 when all is done."""
    options = parser().parse_args(arguments)
    if options.one:
        text = Text.prepare(options.cache / "text")
        torch.set_num_threads(options.threads)
        name, budget = json.loads(options.one)
        print(json.dumps(asdict(SYSTEMS[name](text, Budget(**budget)))))
        return 0
    rates = options.rates or results.on_this_cpu("time-to-loss-rates")
    if options.tune:
        tune(rates, options)
        return 0
    if not rates.exists() or results.read(rates).get("best", {}).keys() != SYSTEMS.keys():
        print(f"{rates}: not there or not finished; run this with --tune first", file=sys.stderr)
        return 2
    return compare(options.out or results.on_this_cpu("time-to-loss"), rates, options)


def tune(path: Path, options: argparse.Namespace) -> None:
    """Everyone's best rate, then the better step size with it, by the loss after equal tokens."""
    found = _kept(path, {"benchmark": "time_to_loss_rates", "tokens": options.tokens})
    found.setdefault("losses", {}), found.setdefault("best", {})
    for name in SYSTEMS:
        losses = found["losses"].setdefault(name, {})

        def loss(rate: float, size: int, name: str = name, losses: Any = losses) -> float:
            key = f"{rate:g} at {size}"
            if key not in losses:
                budget = Budget(rate=rate, tokens_a_step=size, tokens=options.tokens)
                losses[key] = _in_a_process(name, budget, options)["points"][-1][-1]
                results.write(path, found)
                print(f"{name:20s} {key:16s} {losses[key]:.3f}", flush=True)
            return float(losses[key])

        rate = lowest(lambda rate: loss(rate, _STEP_SIZES[0]))
        size = min(_STEP_SIZES, key=lambda size: loss(rate, size))
        found["best"][name] = {"rate": rate, "tokens_a_step": size}
    results.write(path, found)


def lowest(loss: Callable[[float], float]) -> float:
    """The best of the rates, each twice the one before, by walking downhill from the first.

    >>> lowest(lambda rate: abs(rate - 4e-3)), lowest(lambda rate: abs(rate - 3e-4))
    (0.004, 0.00025)
    """
    rate = _FIRST_RATE
    for factor in (2.0, 0.5):
        while loss(factor * rate) < loss(rate):
            rate *= factor
    return rate


def compare(path: Path, rates: Path, options: argparse.Namespace) -> int:
    """Do the runs that fit into the time; 1 while some are missing."""
    around = results.surroundings(num_threads=options.threads)
    best = results.read(rates)["best"]
    fixed = {"benchmark": "time_to_loss", "minutes": options.minutes, "settings": best}
    found = _kept(path, {**fixed, "num_threads": options.threads, "machine": around["machine"]})
    if found.get("checks", {}).get("complete"):
        found = {name: found[name] for name in (*fixed, "num_threads", "machine")}
    found = {**around, **found}
    found["model"] = "width 256, 6 layers, vocabulary 16,384"
    runs: dict[str, Any] = found.setdefault("runs", {})
    left = options.seconds

    def run(name: str, fraction: float) -> float:
        nonlocal left
        seconds, key = 60 * options.minutes * fraction, f"{name} {fraction:g}"
        if key not in runs:
            if (need := seconds + _BESIDES_SECONDS) > left and left < options.seconds:
                raise TimeoutError(f"{key} takes {need / 60:.0f} minutes")
            left -= need
            budget = Budget(seconds=seconds, evaluations=_EVALUATIONS, **best[name])
            runs[key] = _in_a_process(name, budget, options)
            results.write(path, {**found, "checks": {"complete": False}})
            print(f"{key:26s} {describe(runs[key])}", flush=True)
        return float(runs[key]["points"][-1][-1])

    try:
        wanted = run(PADDED, 1.0)
        places = {
            name: shortest(lambda at, name=name: run(name, at) <= wanted, first)
            for name, first in _EXPECTED.items()
        }
    except TimeoutError as later:
        print(f"{later}; the same command goes on")
        return 1
    results.write(path, {**found, **_ratios(runs, places), "checks": {"complete": True}})
    print(json.dumps(_ratios(runs, places), indent=1))
    return 0


def shortest(reaches: Callable[[float], bool], first: float) -> int | None:
    """The place in `FRACTIONS` of the smallest budget that suffices, or None if none does.

    It is sought step by step from where it is expected, so that few runs are needed.

    >>> FRACTIONS[shortest(lambda fraction: fraction > 0.3, first=0.25)]
    0.32
    >>> FRACTIONS[shortest(lambda fraction: fraction > 0.3, first=0.5)]
    0.32
    """
    place = FRACTIONS.index(first)
    if reaches(first):
        while place > 0 and reaches(FRACTIONS[place - 1]):
            place -= 1
        return place
    return next((at for at in range(place + 1, len(FRACTIONS)) if reaches(FRACTIONS[at])), None)


def _ratios(runs: Mapping[str, Any], places: Mapping[str, int | None]) -> dict[str, Any]:
    """Times to the loss, and ours as a share of the others'.

    Of blocks also by the longest run that was too short, which cannot favour us.
    """

    def seconds(name: str, place: int | None) -> float | None:
        run = None if place is None or place < 0 else runs.get(f"{name} {FRACTIONS[place]:g}")
        return None if run is None else float(run["points"][-1][0])

    padded, ours = seconds(PADDED, -1 % len(FRACTIONS)), seconds(OURS, places[OURS])
    above = places[BLOCKS]
    below = len(FRACTIONS) - 1 if above is None else above - 1
    others = {
        PADDED: padded,
        BLOCKS: seconds(BLOCKS, above),
        f"{BLOCKS}, too short": seconds(BLOCKS, below),
    }
    return {
        "loss": runs[f"{PADDED} 1"]["points"][-1][-1],
        "seconds_to_loss": {OURS: ours, **others},
        "share_of_time": {
            name: ours / theirs
            for name, theirs in others.items()
            if ours is not None and theirs is not None
        },
    }


def describe(run: Mapping[str, Any]) -> str:
    """The end of a run in a line."""
    seconds, tokens, loss = run["points"][-1]
    return f"{seconds:7.0f} s  {tokens:9,} tokens  loss {loss:.3f}  {run['precision']}"


def _in_a_process(name: str, budget: Budget, options: argparse.Namespace) -> dict[str, Any]:
    """`Trained` as a mapping."""
    given = ["--one", json.dumps([name, asdict(budget)]), "--threads", options.threads]
    trained: dict[str, Any] = command.in_a_process(
        "benchmarks.cpu.time_to_loss", *given, "--cache", options.cache
    )
    assert trained.keys() == Trained.__dataclass_fields__.keys()
    return trained


def _kept(path: Path, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """What was found under the same conditions, or these alone."""
    if path.exists():
        found = results.read(path)
        if all(found.get(name) == value for name, value in fixed.items()):
            return found
    return dict(fixed)


if __name__ == "__main__":
    sys.exit(main())
