"""A server under twice the load that it takes: nothing is lost, nothing grows.

    python -m tests.reliability.soak MODEL --minutes 30

More clients than the server admits at once ask again as soon as they are answered or refused. Each
request must be answered exactly once, with its own text's vector or with a refusal; the server's
own counts must agree; and its memory must not grow after the first quarter.
"""

import json
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

import numpy as np

from benchmarks.command import bare_parser
from benchmarks.serving.load import Answer, Ask, Connection, closed_loop, embed_ask
from benchmarks.serving.servers import ours

ADMITTED = 8
_TOLERANCE = 0.02  # bfloat16's rounding differs with the shape of the batch


@dataclass
class Outcome:
    """What the clients saw.

    seconds: latencies of what was accepted.
    resident_bytes: the server's memory, about once a second.
    wrong: answers that were none of the expected.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    resident_bytes: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def growth_bytes(self) -> float:
        """By how much the memory of the last quarter is above that of the second."""
        samples = np.array(self.resident_bytes)
        quarter = max(1, len(samples) // 4)
        return float(np.median(samples[-quarter:]) - np.median(samples[quarter : 2 * quarter]))

    def summary(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "median_seconds": float(np.median(self.seconds)),
            "p99_seconds": float(np.quantile(self.seconds, 0.99)),
            "max_seconds": max(self.seconds),
            "growth_bytes": self.growth_bytes,
            "resident_bytes": self.resident_bytes[-1],
            "wrong": self.wrong[:5],
        }


def soak(address: str, texts: Sequence[str], *, seconds: float, num_clients: int) -> Outcome:
    """Put a server of one embedder under load, and watch it."""
    asks = [embed_ask(text, 0) for text in texts]
    expected = _alone(address, asks)
    outcome, lock = Outcome(), Lock()
    next_look = monotonic()

    def look(answer: Answer) -> None:
        nonlocal next_look
        problem = _problem(answer, expected[answer.ask])
        with lock:
            outcome.statuses[answer.status] += 1
            if answer.status == 200:
                outcome.seconds.append(answer.seconds)
            if problem:
                outcome.wrong.append(problem)
            is_due = monotonic() >= next_look
            if is_due:
                next_look = monotonic() + 1
        if is_due:
            outcome.resident_bytes.append(metrics(address)["process_resident_memory_bytes"])

    closed_loop(
        address,
        asks,
        num_clients=num_clients,
        seconds=seconds,
        on_answer=look,
    )
    return outcome


def metrics(address: str) -> dict[str, float]:
    """What the server counts, by name and labels."""
    with urllib.request.urlopen(f"{address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def _alone(address: str, asks: Sequence[Ask]) -> dict[Ask, np.ndarray]:
    with Connection(address) as connection:
        return {ask: np.array(json.loads(connection.send(ask).content)) for ask in asks}


def _problem(answer: Answer, expected: np.ndarray) -> str:
    if answer.status == 429:
        return ""
    if answer.status != 200:
        return f"status {answer.status}: {answer.content[:100]!r}"
    got = np.array(json.loads(answer.content))
    if got.shape != expected.shape or np.abs(got - expected).max() > _TOLERANCE:
        return f"another vector: {np.abs(got - expected).max()}"
    return ""


def main() -> None:
    """Run it and print what came out as JSON; leaves with 1 if something is wrong."""
    made = bare_parser(__doc__, minutes=(30.0, "of load"))
    made.add_argument("model", type=Path)
    arguments = made.parse_args()
    texts = [f"{'word ' * length}number {length}" for length in (1, 3, 9, 30, 90, 200, 300)]
    with ours(arguments.model, options=(f"--max-concurrent-requests={ADMITTED}",)) as address:
        outcome = soak(address, texts, seconds=60 * arguments.minutes, num_clients=2 * ADMITTED)
    print(json.dumps(outcome.summary(), indent=1))
    raise SystemExit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
