"""The table of fine-tunings: scores with their spread, wall time and memory, side by side."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks import results
from benchmarks.finetune.runs import LEARNING_RATE, SEEDS, competitors, result_file
from benchmarks.finetune.workloads import WORKLOADS, Workload

FOLDER = results.FOLDER / "finetune"
_SHORT_TARGET, _LONG_TARGET, _MEMORY_TARGET = 2.0, 5.0, 0.5
_FAST_SHORT = ("sst2", "conll2003")


def row(workload: Workload, work: Path) -> dict[str, Any] | None:
    """What is known of a workload; None before everybody has run with two seeds."""
    ours, theirs = (_runs(workload, work, script) for script in competitors(workload))
    if min(len(ours), len(theirs)) < 2:
        return None
    linear = result_file(work, workload, "linear", None)
    sides = {"ours": _side(ours), "theirs": _side(theirs)}
    return {
        "metric": workload.metric,
        "peer": competitors(workload)[1].removeprefix("peer_").replace("_", "-"),
        **sides,
        "linear": json.loads(linear.read_text())["score"] if linear.exists() else None,
        "speedup": sides["theirs"]["seconds"] / sides["ours"]["seconds"],
        "memory_ratio": sides["ours"]["memory"] / sides["theirs"]["memory"],
        **_verdicts(workload, sides),
    }


def _runs(workload: Workload, work: Path, script: str) -> list[Mapping[str, Any]]:
    paths = [result_file(work, workload, script, seed) for seed in SEEDS]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def _side(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scores = [run["score"] for run in runs]
    return {
        "scores": scores,
        "mean": mean(scores),
        "spread": stdev(scores),
        "seconds": mean(run["seconds"] for run in runs),
        "steps": runs[0]["steps"],
        "memory": mean(run["peak_bytes_above_start"] for run in runs),
        "peak_bytes": mean(run["peak_bytes"] for run in runs),
    }


def _verdicts(workload: Workload, sides: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    """Which of the targets that this workload has are met."""
    ours, theirs = sides["ours"], sides["theirs"]
    speedup = theirs["seconds"] / ours["seconds"]
    verdicts = {"no worse": ours["mean"] >= theirs["mean"] - theirs["spread"]}
    if workload.name in _FAST_SHORT:
        verdicts["twice as fast"] = speedup >= _SHORT_TARGET
    if workload.is_long:
        verdicts["five times as fast"] = speedup >= _LONG_TARGET
        verdicts["half the memory"] = ours["memory"] <= _MEMORY_TARGET * theirs["memory"]
    return verdicts


def write_results(work: Path) -> str:
    """Write the result file; the table in Markdown."""
    rows = {each.name: row(each, work) for each in WORKLOADS}
    result = {
        "benchmark": "finetune",
        **results.surroundings(num_threads=2),
        "learning_rate": LEARNING_RATE,
        "rows": rows,
    }
    results.write(FOLDER / "finetune.json", result)
    return table(rows)


def table(rows: Mapping[str, Mapping[str, Any] | None]) -> str:
    """A line for each workload."""
    lines = [
        "| set | metric | ours | peer | linear | times as fast | memory | missed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in rows.items():
        if found is None:
            lines.append(f"| {name} | | | | | | | not run |")
            continue
        ours, theirs = found["ours"], found["theirs"]
        linear = "" if found["linear"] is None else f"{found['linear']:.3f}"
        missed = ", ".join(target for target in found if found[target] is False)
        lines.append(
            f"| {name} | {found['metric']} | {ours['mean']:.3f} ± {ours['spread']:.3f} "
            f"| {theirs['mean']:.3f} ± {theirs['spread']:.3f} | {linear} "
            f"| {found['speedup']:.1f} | {found['memory_ratio']:.2f} | {missed} |"
        )
    return "\n".join(lines)
