"""What came out of the race: a table with the spread over the seeds, the curves, and the record."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks import results
from benchmarks.learning.candidates import PEERS, about, is_peer

FOLDER = results.FOLDER / "learning"
RESULT_FILE = "learning.json"
_SECONDS = (150, 300, 600, 1_200, 2_500)  # budgets of one core
_CURVES = 6  # candidates in a picture, beside the peers

Points = Sequence[Mapping[str, Any]]
Runs = Mapping[int, Mapping[str, Mapping[int, Points]]]
"""The scores of runs by budget, candidate and seed."""


def read_runs(folder: Path) -> dict[int, dict[str, dict[int, Points]]]:
    """All finished runs of a folder."""
    found: dict[int, dict[str, dict[int, Points]]] = {}
    for path in sorted(folder.rglob("scores.json")):
        *_, tokens, name, seed, _ = path.parts
        points = json.loads(path.read_text(encoding="utf-8"))["points"]
        found.setdefault(int(tokens), {}).setdefault(name, {})[int(seed)] = points
    return found


def final_losses(runs: Mapping[int, Points]) -> list[float]:
    """The held-out loss at the end of a candidate's run with each seed."""
    return [float(points[-1]["loss"]) for points in runs.values()]


def standings(runs: Mapping[str, Mapping[int, Points]]) -> list[str]:
    """The candidates of a budget, the best first.

    >>> end = lambda loss: {0: [{"loss": loss}]}
    >>> standings({"slow": end(6.0), "fast": end(5.0)})
    ['fast', 'slow']
    """
    return sorted(runs, key=lambda name: mean(final_losses(runs[name])))


def read_result(path: Path) -> tuple[Runs, Mapping[str, Any]]:
    """The runs of a result file, and what stands beside them."""
    result = json.loads(path.read_text(encoding="utf-8"))
    return {
        int(tokens): {
            name: {int(seed): points for seed, points in each.items()}
            for name, each in by_name.items()
        }
        for tokens, by_name in result.pop("runs").items()
    }, result


def report(runs: Runs, around: Mapping[str, Any]) -> str:
    """The tables of all budgets in Markdown, and when and where they were made."""
    cpu = "{cpu} (family {family}, model {model})".format(**around["machine"])
    day, commit = around["date"][:10], around["commit"][:12]
    made = (
        f"Written on {day} at commit {commit}; CPU: {cpu}, {around['num_threads']} thread, kernels "
        f"{around['kernels']}. The first row of each table is the record of its budget."
    )
    budgets = sorted(runs, reverse=True)
    tables = [table(runs[each], each) for each in budgets]
    return "\n\n".join([made, *tables, *by_seconds(runs), *catching_up(runs)])


def table(runs: Mapping[str, Mapping[int, Points]], tokens: int) -> str:
    """A line for each candidate of a budget, in Markdown."""
    lines = [f"| {tokens:,} tokens | loss | accuracy | CPU seconds | seeds | |", "|---" * 6 + "|"]
    for name in standings(runs):
        lines.append(f"| `{name}` | {_figures(runs[name])} | {about(name)} |")
    return "\n".join(lines)


def by_seconds(runs: Runs) -> list[str]:
    """A table of the best whole runs, and the peers' best, in some seconds of the CPU; or none."""
    lines = ["| CPU seconds | best | tokens | loss | best peer | tokens | loss |", "|---" * 7 + "|"]
    ends = {
        (tokens, name): mean_curve(each)[-1]
        for tokens, by_name in runs.items()
        for name, each in by_name.items()
    }
    for budget in _SECONDS:
        line, num_found = f"| {budget:,} |", 0
        for wants_peer in (False, True):
            done = {
                (tokens, name): loss
                for (tokens, name), (_, seconds, loss) in ends.items()
                if seconds <= budget and is_peer(name) == wants_peer
            }
            num_found += len(done)
            if done:
                tokens, name = min(done, key=lambda each: done[each])
                line += f" `{name}` | {tokens:,} | {done[tokens, name]:.3f} |"
            else:
                line += " | | |"
        lines += [line] if num_found else []
    return ["\n".join(lines)] if len(lines) > 2 else []


def catching_up(runs: Runs) -> list[str]:
    """A table of who first has the loss that a peer ends with, by the CPU's seconds; or none."""
    heads = ("budget", "peer at its best rate", "loss", "CPU seconds", "soonest there")
    lines = ["| " + " | ".join([*heads, "tokens by then", "CPU seconds", "share"]) + " |"]
    lines += ["|---" * 8 + "|"]
    for tokens in sorted(runs, reverse=True):
        curves = {name: mean_curve(each) for name, each in runs[tokens].items()}
        for peer in best_peers(runs[tokens]):
            _, seconds, loss = curves[peer][-1]
            ours = {name: _reached(curves[name], loss) for name in curves if not is_peer(name)}
            there = {name: place for name, place in ours.items() if place}
            ended = f"| {tokens:,} | `{peer}` | {loss:.3f} | {seconds:.0f} |"
            if there:
                first = min(there, key=lambda name: there[name][1])
                at, spent, _ = there[first]
                ended += f" `{first}` | {at:,.0f} | {spent:.0f} | {spent / seconds:.2f} |"
            lines.append(ended)
    return ["\n".join(lines)] if len(lines) > 2 else []


def best_peers(runs: Mapping[str, Mapping[int, Points]]) -> list[str]:
    """Each peer at its best rate."""
    found = [[name for name in standings(runs) if name.startswith(f"{peer}@")] for peer in PEERS]
    return [names[0] for names in found if names]


def _reached(curve: Sequence[tuple[float, ...]], loss: float) -> list[float]:
    """Tokens, CPU seconds and loss where a curve has a loss, between two points; empty if never."""
    for before, after in pairwise(curve):
        if after[-1] <= loss:
            share = max(0.0, (before[-1] - loss) / (before[-1] - after[-1]))
            return [a + share * (b - a) for a, b in zip(before, after, strict=True)]
    return []


def mean_curve(runs: Mapping[int, Points]) -> list[tuple[float, ...]]:
    """Tokens, CPU seconds and loss along a run, as the mean over its seeds.

    >>> start, end = {"tokens": 8, "cpu_seconds": 1}, {"tokens": 16, "cpu_seconds": 3}
    >>> mean_curve({0: [{**start, "loss": 7}, {**end, "loss": 5}]})
    [(8, 1, 7), (16, 3, 5)]
    """
    keys = ("tokens", "cpu_seconds", "loss")
    return [
        tuple(mean(point[key] for point in points) for key in keys)
        for points in zip(*runs.values(), strict=False)
    ]


def _figures(runs: Mapping[int, Points]) -> str:
    losses = final_losses(runs)
    spread = f" ± {stdev(losses):.3f}" if len(losses) > 1 else ""
    ends = [points[-1] for points in runs.values()]
    accuracy = [end["accuracy"] for end in ends if end["accuracy"] is not None]
    seconds = [end["cpu_seconds"] for end in ends if end["cpu_seconds"] is not None]
    parts = [
        f"{mean(losses):.3f}{spread}",
        f"{mean(accuracy):.1%}" if accuracy else "",
        f"{mean(seconds):.0f}" if seconds else "",
        str(len(losses)),
    ]
    return " | ".join(parts)


def write_result(runs: Runs, path: Path, around: Mapping[str, Any]) -> None:
    """Write all points, the record of each budget, and a picture of each budget's curves."""
    records = {tokens: standings(each)[0] for tokens, each in runs.items()}
    result = {"benchmark": "learning", **around, "records": records, "runs": runs}
    results.write(path, result)
    for tokens, each in runs.items():
        draw(each, path.with_name(f"{path.stem}-{tokens}.png"), f"{tokens:,} tokens")


def draw(runs: Mapping[str, Mapping[int, Points]], path: Path, title: str) -> None:
    """Held-out loss over tokens and over seconds of the CPU: the mean, and the range of seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained", dpi=110)
    by_tokens, by_seconds = figure.subplots(1, 2, sharey=True)
    best = standings(runs)[:_CURVES]
    for name in [*best, *(peer for peer in best_peers(runs) if peer not in best)]:
        seeds = [list(points) for points in runs[name].values()]
        losses = [[point["loss"] for point in points] for points in zip(*seeds, strict=False)]
        means = [mean(each) for each in losses]
        tokens = [point["tokens"] for point in seeds[0]][: len(means)]
        (line,) = by_tokens.plot(tokens, means, marker=".", label=name)
        low, high = [min(each) for each in losses], [max(each) for each in losses]
        by_tokens.fill_between(tokens, low, high, alpha=0.2, color=line.get_color())
        seconds = [point["cpu_seconds"] for point in seeds[0]][: len(means)]
        if None not in seconds:
            by_seconds.plot(seconds, means, marker=".", color=line.get_color())
    by_tokens.set_xlabel("tokens")
    by_tokens.set_ylabel("held-out loss, nats a masked token")
    by_seconds.set_xlabel("seconds of one CPU core")
    by_tokens.legend(frameon=False, fontsize=8)
    figure.suptitle(title)
    for axes in (by_tokens, by_seconds):
        axes.grid(color="#e6e6e6")
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
