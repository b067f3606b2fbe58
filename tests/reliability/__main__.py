"""Count what is lost or wrong after kills, signals, flipped bits, crafted folders and corpora.

    python -m tests.reliability                      # all of it
    python -m tests.reliability --only flips corpora
    python -m tests.reliability --only kills --verbs "embed -o" --places 1000

Everything is made from nothing in a temporary folder, and no network is used. All of it takes more
than an hour; each call adds to the results of those before. Ends with exit code 1 where anything
was lost, not found, or ended in a traceback.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PARTS = ("kills", "stops", "flips", "crafted", "corpora", "held", "connections")
RESULT = Path("benchmarks/results/reliability.json")
_STOPS = {
    "Ctrl-C": (signal.SIGINT,),
    "Ctrl-C twice": (signal.SIGINT, signal.SIGINT),
    "Ctrl-C, then a kill": (signal.SIGINT, signal.SIGKILL),
    "SIGTERM": (signal.SIGTERM,),
}
_SHORT_VALUES = (None, 5, -1, 10**30, "x", [], [5], {"x": 5})


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--only", nargs="+", choices=PARTS)
    made.add_argument("--verbs", nargs="+", default=[], help="of kills and stops; parts of names")
    made.add_argument(
        "--places", type=int, default=20, help="the most of a verb; of more, each k-th"
    )
    made.add_argument("--random", type=int, default=3, help="kills of a verb at random times")
    made.add_argument("--flips", type=int, default=1, help="bits that are flipped in each file")
    made.add_argument("--all-values", action="store_true", help="put 23 values into each place")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--output", type=Path, default=RESULT)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen parts; 0 where nothing was lost."""
    # Children are forked, so nothing here may begin threads that they would miss.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch
    from tests.reliability.samples import write_samples

    torch.set_num_threads(1)
    options = parser().parse_args(arguments)
    record = Record(options.output)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve()
        (home / "samples").mkdir()
        samples = write_samples(home / "samples")
        for name, part in _parts(options, samples, home, record).items():
            if options.only and name not in options.only:
                continue
            began = time.monotonic()
            outcome = part()
            record.add(name, outcome, time.monotonic() - began)
    return int(record.num_faults > 0)


class Record:
    """The file of the results. What other calls have written there stays, unless it is done anew.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        from benchmarks import results

        self.path, self.num_faults = path, 0
        self._now = results.surroundings(num_threads=1)
        earlier = results.read(path)["parts"] if path.exists() else {}
        self._parts: dict[str, Any] = earlier

    def add(self, name: str, outcome: Mapping[str, Any], seconds: float) -> None:
        """Write and show the outcome of a part, or of a verb of the kills: "kills/VERB"."""
        from benchmarks import results

        _tell(name, outcome, seconds)
        if name == "kills":
            return  # its verbs are there already
        self.num_faults += len(outcome["faults"])
        now = results.surroundings(num_threads=1)
        when = {key: now[key] for key in ("date", "load_average")}
        when |= {key: self._now[key] for key in ("commit", "uncommitted")}  # what was imported
        when |= {"cpu": results.machine_name(), "num_cpus": now["machine"]["num_cpus"]}
        self._parts[name] = {**outcome, "seconds": round(seconds, 1), **when}
        verbs = [each for each in self._parts if each.startswith("kills/")]
        counted = ("chosen", "random")
        total = {key: sum(self._parts[each][key] for each in verbs) for key in counted}
        total["faults"] = sum(len(self._parts[each]["faults"]) for each in verbs)
        parts = dict(sorted(self._parts.items()))
        results.write(self.path, {**self._now, "kills": total, "parts": parts})


def _parts(
    options: argparse.Namespace, samples: dict[str, Path], home: Path, record: Record
) -> dict[str, Callable[[], dict[str, Any]]]:
    from tests.reliability import corpora, crafted, flips

    values = crafted.VALUES if options.all_values else _SHORT_VALUES
    return {
        "flips": lambda: vars(flips.run(samples, flips_each=options.flips, seed=options.seed)),
        "corpora": lambda: vars(corpora.run(samples, home / "corpora")),
        "kills": lambda: _kills(options, samples, home / "kills" / "trial", record),
        "stops": lambda: _stops(options, samples, home / "stops" / "trial"),
        "crafted": lambda: vars(crafted.run(samples, values)),
        "held": _held,
        "connections": lambda: _connections(samples["embedder"]),
    }


def _held() -> dict[str, Any]:
    """Send a server the worst requests that are known, and take how long each holds its loop."""
    from tests.reliability import held_loop

    requests = {found.pop("request"): found for found in held_loop.measured()}
    times = {name: found["longest_callback_cpu_ms"] for name, found in requests.items()}
    slow = [name for name, took in times.items() if took > held_loop.MOST_MS]
    return {
        "requests": len(requests),
        "longest_callback_cpu_ms": max(times.values()),
        "longest_of": max(times, key=lambda name: times[name]),
        "each": requests,
        "faults": [f"{name}: held the event loop for {times[name]} ms" for name in slow],
    }


def _connections(model: Path) -> dict[str, Any]:
    """Attack a server, and count the times that `/health` was asked, and not answered, beside."""
    from tests.reliability import hostile

    from benchmarks.serving.servers import ours

    hostile.raise_descriptor_limit()
    with ours(model) as address:
        attacks = hostile.attack(address, connections=2000, seconds=15)
    failed = [name for name, found in attacks.items() if found["health_failed"]]
    return {
        "health_asked": sum(found["health_asked"] for found in attacks.values()),
        "attacks": attacks,
        "faults": [f"{name}: /health was not answered" for name in failed],
    }


def _kills(
    options: argparse.Namespace, samples: dict[str, Path], home: Path, record: Record
) -> dict[str, Any]:
    from tests.reliability import kills, verbs

    total: dict[str, Any] = {"kills": 0, "faults": []}
    for verb in verbs.all_verbs(samples, options.verbs):
        began = time.monotonic()
        outcome = kills.run_verb(
            verb,
            home,
            most_places=options.places,
            random_kills=options.random,
            seed=options.seed,
        )
        total["kills"] += outcome.chosen + outcome.random
        record.add(f"kills/{verb.name}", vars(outcome), time.monotonic() - began)
    return total


def _stops(options: argparse.Namespace, samples: dict[str, Path], home: Path) -> dict[str, Any]:
    """Ask every verb to stop, in every way, at some of its places and at random times."""
    from tests.reliability import kills, verbs

    counts: dict[str, Any] = {how: {"verbs": 0, "chosen": 0, "random": 0} for how in _STOPS}
    faults: list[str] = []
    for verb in verbs.all_verbs(samples, options.verbs):
        for how, signals in _STOPS.items():
            found = kills.run_verb(
                verb,
                home,
                most_places=options.places,
                random_kills=options.random,
                seed=options.seed,
                signals=signals,
            )
            counts[how]["verbs"] += 1
            counts[how]["chosen"] += found.chosen
            counts[how]["random"] += found.random
            faults += [f"{how}: {fault}" for fault in found.faults]
        print(verb.name, counts, len(faults), flush=True)
    return {**counts, "faults": faults}


def _tell(name: str, outcome: Mapping[str, Any], seconds: float) -> None:
    counts = ", ".join(f"{value} {key}" for key, value in outcome.items() if isinstance(value, int))
    print(f"{name}: {counts}, {len(outcome['faults'])} faults  ({seconds:.0f} s)", flush=True)
    for fault in outcome["faults"]:
        print(f"    {fault}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
