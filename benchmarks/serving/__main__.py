"""Throughput, latency and fairness of the server beside others, in turn.

    python -m benchmarks.serving DATA --output benchmarks/results/serving/base.json

DATA is the folder of real corpora. Each server runs alone in a process of its own with all cores,
one after the other, and then again: A B C A B C. Of each are measured

- throughput at saturation: clients that ask again as soon as they are answered;
- latency at half of its own saturation: requests at random times;
- latency of short texts beside a client that sends one text of 8,192 tokens after another.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from statistics import median
from threading import Thread
from time import monotonic
from typing import Any

import numpy as np

from benchmarks.command import bare_parser
from benchmarks.results import FOLDER, surroundings, write
from benchmarks.serving.load import Answer, Ask, closed_loop, open_loop
from benchmarks.serving.servers import infinity, ours, sentence_transformers
from benchmarks.serving.texts import model_folder, ragged, short_and_long
from modernbert.tokenizer.tokenizer import Tokenizer

Start = Callable[[], AbstractContextManager[str]]

_CLIENTS = 32
_OPEN_CLIENTS = 256
_SHORT_RATE = 2.0
_PATHS = {
    "tokens_per_second": ("saturation", "tokens_per_second"),
    "half_median_seconds": ("half", "median_seconds"),
    "half_p99_seconds": ("half", "p99_seconds"),
    "short_p99_beside_long_seconds": ("mixed", "short", "p99_seconds"),
    "long_median_seconds": ("mixed", "long", "median_seconds"),
}
_COMPARED = (
    ("ours float32", "sentence-transformers float32"),
    ("ours float32", "infinity float32"),
    ("ours auto", "sentence-transformers bfloat16"),
    ("ours auto", "sentence-transformers float32"),
    ("ours auto", "infinity float32"),
)


def main() -> None:
    """Measure and write."""
    arguments = _arguments()
    folder = model_folder(arguments.data, size=arguments.size, num_layers=arguments.layers)
    tokenizer = Tokenizer.from_pretrained(folder)
    asks = ragged(arguments.data, tokenizer, count=arguments.texts)
    mixed = short_and_long(arguments.data, tokenizer, num_short=400, num_long=20)
    servers = _servers(folder, arguments.infinity)
    servers = {name: servers[name] for name in arguments.servers or servers}
    result: dict[str, Any] = {
        "surroundings": surroundings(num_threads=arguments.threads),
        "model": folder.name,
        "mean_tokens": sum(ask.num_tokens for ask in asks) / len(asks),
        "rounds": {name: [] for name in servers},
    }
    for index in range(arguments.rounds):
        for name, start in servers.items():
            path = "/embeddings" if name.startswith("infinity") else "/embed"
            sent = [[replace(ask, path=path) for ask in each] for each in (asks, *mixed)]
            with start() as address:
                figures = measure(address, *sent, seconds=arguments.seconds)
            print(f"round {index + 1}, {name}: {figures}", flush=True)
            result["rounds"][name].append(figures)
            result["summary"] = {each: summary(r) for each, r in result["rounds"].items() if r}
            result["ratios"] = ratios(result["rounds"])
            write(arguments.output, result)


def measure(
    address: str,
    asks: Sequence[Ask],
    short: Sequence[Ask],
    long: Sequence[Ask],
    *,
    seconds: float,
) -> dict[str, Any]:
    """All figures of one server."""
    _saturate(address, asks, seconds / 4)  # to warm up
    saturation = _saturate(address, asks, seconds)
    if not saturation["requests_per_second"]:
        raise RuntimeError(f"{address}: no request was answered")
    rate = saturation["requests_per_second"] / 2
    half = open_loop(
        address, _cycled(asks, max(20, int(rate * seconds))), rate=rate, num_clients=_OPEN_CLIENTS
    )
    return {
        "saturation": saturation,
        "half": {"requests_per_second": rate, **latencies(half)},
        "mixed": _beside_long(address, short, long, seconds=seconds),
    }


def _saturate(address: str, asks: Sequence[Ask], seconds: float) -> dict[str, Any]:
    answers: list[Answer] = []
    began = monotonic()
    closed_loop(
        address,
        lambda number: asks[number % len(asks)],
        num_clients=_CLIENTS,
        seconds=seconds,
        on_answer=answers.append,
    )
    # What was begun before the end and done after it counts by the time that it took.
    elapsed = monotonic() - began
    done = [answer for answer in answers if answer.status == 200]
    return {
        "requests_per_second": len(done) / elapsed,
        "tokens_per_second": sum(answer.ask.num_tokens for answer in done) / elapsed,
        "refused": len(answers) - len(done),
    }


def _beside_long(
    address: str, short: Sequence[Ask], long: Sequence[Ask], *, seconds: float
) -> dict[str, Any]:
    """Short texts at a steady rate while there is always a long one under way."""
    long_answers: list[Answer] = []
    other = Thread(
        target=closed_loop,
        args=(address, lambda number: long[number % len(long)]),
        kwargs={"num_clients": 1, "seconds": seconds, "on_answer": long_answers.append},
    )
    other.start()
    count = max(5, int(seconds * _SHORT_RATE))
    answers = open_loop(address, _cycled(short, count), rate=_SHORT_RATE, num_clients=_OPEN_CLIENTS)
    other.join()
    return {"short": latencies(answers), "long": latencies(long_answers)}


def latencies(answers: Sequence[Answer]) -> dict[str, Any]:
    """Quantiles of what was answered, and how much was not."""
    seconds = [answer.seconds for answer in answers if answer.status == 200]
    quantiles = {
        f"{name}_seconds": float(np.quantile(seconds, q)) if seconds else None
        for name, q in (("median", 0.5), ("p99", 0.99), ("max", 1.0))
    }
    return {**quantiles, "answered": len(seconds), "refused": len(answers) - len(seconds)}


def summary(rounds: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The figures that targets are about: medians over the rounds."""
    return {name: median(_at(each, path) for each in rounds) for name, path in _PATHS.items()}


def ratios(rounds: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Of ours over a peer's at equal precision, and of `auto` over all: medians of the rounds'."""
    found: dict[str, dict[str, float]] = {}
    for our, their in _COMPARED:
        pairs = list(zip(rounds.get(our, ()), rounds.get(their, ()), strict=False))
        if pairs:
            found[f"{our} over {their}"] = {
                name: median(_at(o, path) / _at(t, path) for o, t in pairs)
                for name, path in _PATHS.items()
            }
    return found


def _at(value: Any, path: Sequence[str]) -> float:
    for key in path:
        value = value[key]
    return float("nan") if value is None else float(value)


def _cycled(asks: Sequence[Ask], count: int) -> list[Ask]:
    return [asks[number % len(asks)] for number in range(count)]


def _servers(folder: Path, infinity_program: Path | None) -> dict[str, Start]:
    wait = "--max-wait=600"
    servers: dict[str, Start] = {
        "ours auto": lambda: ours(folder, options=(wait, "--timeout=600")),
        "ours float32": lambda: ours(
            folder, options=(wait, "--timeout=600", "--precision=float32")
        ),
        "sentence-transformers float32": lambda: sentence_transformers(folder, dtype="float32"),
        "sentence-transformers bfloat16": lambda: sentence_transformers(folder, dtype="bfloat16"),
    }
    if infinity_program is not None:
        servers["infinity float32"] = lambda: infinity(folder, infinity_program, dtype="float32")
    return servers


def _arguments() -> argparse.Namespace:
    made = bare_parser(
        __doc__,
        output=(FOLDER / "serving" / "base.json", "file of the result"),
        size=("base", "a preset"),
        layers=(int, "fewer than the size has, for a quick look"),
        rounds=(2, "turns of every server"),
        seconds=(60.0, "of each of the three parts"),
        texts=(2000, "that are sent again and again"),
        threads=(0, "what the results say; 0 for all"),
        infinity=(Path, "the program infinity_emb, if there is one"),
    )
    made.add_argument("data", type=Path)
    made.add_argument("--servers", nargs="*", help="only these")
    return made.parse_args()


if __name__ == "__main__":
    main()
