"""The claims, each as a difference between two arms with its spread over the seeds."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

from benchmarks import results
from benchmarks.recipe.arms import ARMS

FOLDER = results.FOLDER / "recipe"
_CONFIDENCE = 0.95

Scores = Mapping[str, Mapping[int, Mapping[str, Any]]]
Measure = Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The arm `better` has a lower `measure` than the arm `worse`.

    measure: from the scores of a run; `measure_worse` where the other side's is another.
    """

    name: str
    claim: str
    better: str
    worse: str
    measure: Measure
    measure_worse: Measure | None = None


def _mixed(scores: Mapping[str, Any]) -> float:
    return float(scores["mixed"])


def _reviews(scores: Mapping[str, Any]) -> float:
    return float(scores["reviews"])


def _beyond(scores: Mapping[str, Any]) -> float:
    """The loss of the tokens that stand after the 1,024th."""
    rows = [row for row in scores["books_by_position"] if row["from"] >= 1_024]
    return sum(row["loss"] * row["tokens"] for row in rows) / sum(row["tokens"] for row in rows)


def _averaged(number: int) -> Measure:
    return lambda scores: float(scores["averages"][str(number)])


_EXTENDED_CLAIM = "after extension tokens beyond the 1,024th are predicted better than before"
_TILED_CLAIM = "a large model tiled from a small one beats a random one at equal tokens"
_DECAYED_CLAIM = "the mean of the last 3 checkpoints beats the last, when the rate has decayed"
_CONSTANT_CLAIM = "the mean of the last 5 checkpoints beats the last, at a constant rate"

# Name, claim, the better and the worse arm, measure, and the worse arm's where it is another.
_ROWS: tuple[tuple[Any, ...], ...] = (
    ("isolation", "documents that do not see each other beat documents that do",
     "usual", "joined", _mixed),
    ("isolation, reviews alone", "the same on short documents", "usual", "joined", _reviews),
    ("masking", "30% masked beats 15% at equal tokens", "usual", "masked-15", _mixed),
    ("context extension", _EXTENDED_CLAIM, "extended", "usual", _beyond),
    ("context extension, equal tokens", "and better than after as much training at 1,024",
     "extended", "not-extended", _beyond),
    ("tiling", _TILED_CLAIM, "large-kind", "large-random", _mixed),
    ("layer map", "a map of layers that keeps their kind beats the paper's",
     "large-kind", "large-paper", _mixed),
    ("averaging, after decay", _DECAYED_CLAIM, "usual", "usual", _averaged(3), _averaged(1)),
    ("averaging, constant rate", _CONSTANT_CLAIM,
     "constant", "constant", _averaged(5), _averaged(1)),
    ("every third global, 1,024", "every third layer global is no worse than all global",
     "usual", "all-global", _mixed),
    ("every third global, 8,192", "the same after extension, tokens beyond the 1,024th",
     "extended", "all-global-extended", _beyond),
)  # fmt: skip
_FIELDS = ("name", "claim", "better", "worse", "measure", "measure_worse")
CLAIMS = tuple(Claim(**dict(zip(_FIELDS, row, strict=False))) for row in _ROWS)


def compare(claim: Claim, scores: Scores) -> dict[str, Any] | None:
    """The differences better - worse of the seeds that both arms have; None without two of them.

    `verdict`: whether the interval of the mean difference lies below 0, above it, or around it.
    """
    seeds = sorted(scores.get(claim.better, {}).keys() & scores.get(claim.worse, {}).keys())
    if len(seeds) < 2:
        return None
    measure_worse = claim.measure_worse or claim.measure
    better = [claim.measure(scores[claim.better][seed]) for seed in seeds]
    worse = [measure_worse(scores[claim.worse][seed]) for seed in seeds]
    differences = [a - b for a, b in zip(better, worse, strict=True)]
    return {
        "claim": claim.claim,
        "better": {"arm": claim.better, "losses": better, "mean": mean(better)},
        "worse": {"arm": claim.worse, "losses": worse, "mean": mean(worse)},
        "differences": differences,
        **interval(differences),
    }


def interval(differences: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation and the 95% interval of the mean, by Student's t.

    >>> found = interval([-0.02, -0.03, -0.04])
    >>> round(found["mean_difference"], 3), found["verdict"]
    (-0.03, 'reproduced')
    """
    centre, spread = mean(differences), stdev(differences)
    reach = student.ppf((1 + _CONFIDENCE) / 2, len(differences) - 1) * spread
    reach /= len(differences) ** 0.5
    low, high = centre - reach, centre + reach
    verdict = "reproduced" if high < 0 else "the opposite" if low > 0 else "no clear difference"
    return {
        "mean_difference": centre,
        "standard_deviation": spread,
        "interval": [low, high],
        "verdict": verdict,
    }


def read_scores(runs: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """The scores of every finished run, by arm and seed."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for arm in ARMS:
        for path in sorted((runs / arm.name).glob("*/scores.json")):
            found.setdefault(arm.name, {})[int(path.parent.name)] = json.loads(path.read_text())
    return found


def write_results(runs: Path) -> str:
    """Write the result file; a table of the claims in Markdown."""
    scores = read_scores(runs)
    claims = {each.name: compare(each, scores) for each in CLAIMS}
    result = {
        "benchmark": "recipe",
        **results.surroundings(num_threads=1),
        "arms": {arm.name: arm.about for arm in ARMS},
        "claims": claims,
        "scores": scores,
    }
    results.write(FOLDER / "recipe.json", result)
    return table(claims)


def table(claims: Mapping[str, Mapping[str, Any] | None]) -> str:
    """A line for each claim."""
    lines = [
        "| claim | loss | against | difference (95%) | |",
        "|---|---|---|---|---|",
    ]
    for name, found in claims.items():
        if found is None:
            lines.append(f"| {name} | | | | not run |")
            continue
        low, high = found["interval"]
        lines.append(
            f"| {name} | {found['better']['mean']:.3f} | {found['worse']['mean']:.3f} "
            f"| {found['mean_difference']:+.4f} ({low:+.4f} to {high:+.4f}) | {found['verdict']} |"
        )
    return "\n".join(lines)
