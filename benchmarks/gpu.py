"""Everything that is to be measured on a GPU, in sections of less than three minutes each.

    python -m benchmarks.gpu --section correctness
    python -m benchmarks.gpu --section training --size base
    python -m benchmarks.gpu --section mini                  again until it says `finished`
    python -m benchmarks.gpu --minutes 14                    what is most wanted, while time is left
    python -m benchmarks.gpu --device cpu --tiny             all of it in small, to try the code

A section ends with a short table and is merged into one JSON of the day, with versions, clocks and
commit; so sections can be run one by one, in any order and again. With --minutes each runs in a
process of its own, which is stopped after three minutes, and those that the file has are left out.
What a section has found until it is stopped stays in the file, marked as unfinished.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import results
from benchmarks.command import bare_parser
from benchmarks.cuda import anchors, equality, libraries, optimizers, parts, speeds
from benchmarks.cuda.bench import SIZES, Bench, Rows, versions
from benchmarks.cuda.contrastive import contrastive
from benchmarks.cuda.mini import RECIPE, mini
from modernbert.errors import ModernBertError

FOLDER = results.FOLDER / "gpu"

SECTIONS: Mapping[str, Callable[[Bench], Rows]] = {
    "correctness": equality.correctness,
    "ceilings": speeds.ceilings,
    "training": speeds.training,
    "fused": speeds.fused,
    "optimizer": optimizers.optimizer,
    "memory": speeds.memory,
    "parts": parts.parts,
    "transformers": libraries.transformers,
    "flex": speeds.flex,
    "inference": libraries.inference,
    "queries": anchors.queries,
    "documents": anchors.documents,
    "indexing": anchors.indexing,
    "answers": anchors.answers,
    "rerank": anchors.rerank,
    "contrastive": contrastive,
    "mini": mini,
}

IN_ORDER: Sequence[tuple[str, ...]] = (
    ("correctness", "base"),
    ("inference", "base"),
    ("training", "base"),
    ("optimizer", "base"),
    ("fused", "base"),
    ("answers",),
    ("queries", "base"),
    ("rerank",),
    ("mini",),
    ("mini",),
    ("mini",),
    ("documents", "base"),
    ("contrastive", "base"),
    ("memory", "base"),
    ("inference", "large"),
    ("parts", "base"),
    ("indexing", "base"),
    ("memory", "large"),
    ("training", "large"),
    ("transformers", "large"),
    ("flex", "base"),
)
"""Sections with the size that they are run for, by their worth."""

_MOST_MINUTES = 3.0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = bare_parser(
        __doc__,
        device=("cuda", "cuda, or cpu to try the code"),
        seconds=(2.0, "that a measurement is repeated"),
        tiny=(False, "small models and batches"),
        recipe=(RECIPE, "of the section mini"),
        minutes=(float, "run the sections in order for so long"),
        out=(Path, "the JSON; that of the day when absent"),
    )
    made.add_argument(
        "--section", action="append", choices=SECTIONS, help="one of several; all but mini if none"
    )
    made.add_argument("--size", action="append", choices=SIZES, help="of the models; both if none")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run sections, print their tables, merge them into the file; 1 if anything is not equal."""
    options = parser().parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here; try the code with --device cpu --tiny", file=sys.stderr)
        return 2
    bench = Bench(device=device, tiny=options.tiny, seconds=options.seconds)
    if options.size:
        bench = replace(bench, sizes=tuple(options.size))
    path = options.out or FOLDER / f"{datetime.now(UTC).date().isoformat()}.json"
    if options.minutes is not None:
        return run_in_order(options, path)
    unequal = False
    for name in options.section or [name for name in SECTIONS if name != "mini"]:
        section = partial(mini, recipe=options.recipe) if name == "mini" else SECTIONS[name]
        key = section_key(name, *(options.size or ()))
        begin = time.monotonic()
        try:
            rows = section(replace(bench, keep=partial(_keep, path, key, bench)))
        except ModernBertError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        minutes = (time.monotonic() - begin) / 60
        merge(path, key, {"minutes": round(minutes, 2), "rows": rows}, bench)
        print(f"\n{name} ({minutes:.1f} minutes)\n{table(rows)}", flush=True)
        unequal |= any(figures.get("ok") == "NO" for figures in rows.values())
    print(f"\n{path}")
    return int(unequal)


def section_key(name: str, *sizes: str) -> str:
    """What a section is called in the file.

    >>> section_key("memory"), section_key("memory", "large")
    ('memory', 'memory large')
    """
    return " ".join((name, *sizes))


def run_in_order(options: argparse.Namespace, path: Path) -> int:
    """Run the sections that the file lacks, in processes of their own; how many went wrong.

    Those that were stopped before come after the others.
    """
    end = time.monotonic() + 60 * options.minutes
    failed = 0
    stopped = {each for each in IN_ORDER if _was_stopped(_section(path, section_key(*each)))}
    for name, *sizes in sorted(IN_ORDER, key=stopped.__contains__):
        left = end - time.monotonic()
        if left <= 0:
            print(f"no time for {section_key(name, *sizes)}")
        elif not _is_finished(path, section_key(name, *sizes)):
            failed += not _run(options, path, name, sizes, min(left, 60 * _MOST_MINUTES))
    return failed


def _run(
    options: argparse.Namespace, path: Path, name: str, sizes: Sequence[str], seconds: float
) -> bool:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", "--section", name]
    command += ["--device", options.device, "--seconds", str(options.seconds), "--out", str(path)]
    command += [text for size in sizes for text in ("--size", size)]
    command += ["--recipe", str(options.recipe)] + ["--tiny"] * options.tiny
    try:
        return subprocess.run(command, timeout=seconds).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"{section_key(name, *sizes)}: stopped after {seconds:.0f} seconds", flush=True)
        return False


def _is_finished(path: Path, key: str) -> bool:
    """Whether the file has all of a section; `mini` is gone on with while it was interrupted."""
    section = _section(path, key)
    run = (section or {}).get("rows", {}).get("run", {})
    return section is not None and run.get("status") != "interrupted" and not _was_stopped(section)


def _was_stopped(section: Mapping[str, Any] | None) -> bool:
    return bool(section and section.get("unfinished"))


def _section(path: Path, key: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = (
        results.read(path)["sections"].get(key) if path.exists() else None
    )
    return found


def _keep(path: Path, key: str, bench: Bench, rows: Rows) -> None:
    merge(path, key, {"unfinished": True, "rows": dict(rows)}, bench)


def merge(path: Path, name: str, found: Mapping[str, Any], bench: Bench) -> None:
    """Put a section into the file, beside those that are there."""
    whole: dict[str, Any] = {"benchmark": "gpu", "sections": {}}
    whole = results.read(path) if path.exists() else whole
    around = results.surroundings(num_threads=torch.get_num_threads())
    told = {key: around[key] for key in ("date", "commit", "uncommitted", "load_average")}
    section = {**told, "versions": versions(bench), "tiny": bench.tiny, **found}
    if name == "mini" and name in whole["sections"]:  # the curve of the parts before
        section["rows"] = {**whole["sections"][name]["rows"], **found["rows"]}
    results.write(path, {**whole, "sections": {**whole["sections"], name: section}})


def table(rows: Rows) -> str:
    """A line for each row, its figures with three digits or more."""
    width = max(map(len, rows), default=0)
    return "\n".join(
        f"  {name:{width}}  "
        + "  ".join(f"{key} {_short(value)}" for key, value in figures.items())
        for name, figures in rows.items()
    )


def _short(value: float | int | str) -> str:
    """Format a figure for a table.

    >>> _short(123456.7), _short(0.01234), _short(3), _short("yes")
    ('123,457', '0.0123', '3', 'yes')
    """
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else value
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
