"""Claim: more tokens a second than other servers, and short texts hardly wait for large requests.

    python -m benchmarks.serving DATA
    python -m benchmarks.serving DATA --large --peer-python PEERS/bin/python

DATA is the folder of real corpora. Each server runs alone in a process of its own with all cores,
one after the other, and then again: A B C A B C. Of each are measured

- throughput at saturation: clients that ask again as soon as they are answered;
- latency at half of its own saturation: requests at random times;
- latency of short texts beside a client that sends one text of 8,192 tokens after another.

With `--large` these are

- throughput of requests of 500 texts;
- latency of short texts beside a client that sends reranks of 100 texts, and one with long texts.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from os import cpu_count
from pathlib import Path
from statistics import median
from threading import Thread
from time import monotonic
from typing import Any

import numpy as np

from benchmarks.command import bare_parser
from benchmarks.results import FOLDER, surroundings, write
from benchmarks.serving.load import Answer, Ask, Connection, closed_loop, open_loop
from benchmarks.serving.servers import infinity, ours, sentence_transformers
from benchmarks.serving.texts import model_folder, ragged, requests, short_and_long
from modernbert.tokenizer.tokenizer import Tokenizer

Start = Callable[[], AbstractContextManager[str]]
Asks = Mapping[str, Sequence[Ask]]
Figures = dict[str, Any]

_CLIENTS, _LARGE_CLIENTS, _OPEN_CLIENTS = 32, 2, 256
_COSINE_FROM = 0.99
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
    options = _options()
    made = partial(model_folder, options.data, size=options.size, num_layers=options.layers)
    models = made(), made(is_reranker=True)
    asks = _asks(options, Tokenizer.from_pretrained(models[0]))
    servers = _servers(models, options)
    servers = {name: servers[name] for name in options.servers or servers}
    result: Figures = {
        "surroundings": surroundings(num_threads=cpu_count() or 1),
        "models": [model.name for model in models],
        "mean_tokens": {
            kind: sum(ask.num_tokens for ask in each) / len(each) for kind, each in asks.items()
        },
        "rounds": {name: [] for name in servers},
    }
    expected: Any = None
    for index in range(options.rounds):
        for name, start in servers.items():
            sent = _sent_to(name, asks)
            with start() as address:
                vector = _vector(address, sent["texts"][0])
                expected = vector if expected is None else expected
                if vector @ expected < _COSINE_FROM:
                    raise RuntimeError(f"{name}: a vector with a cosine of {vector @ expected}")
                figures = measure(address, sent, options)
            print(f"round {index + 1}, {name}: {figures}", flush=True)
            result["rounds"][name].append(figures)
            result["summary"] = {each: summary(r) for each, r in result["rounds"].items() if r}
            result["ratios"] = ratios(result["rounds"])
            write(options.output, result)
    print(json.dumps(result["ratios"], indent=1))


def _vector(address: str, ask: Ask) -> Any:
    """The first vector of a request, which all servers have to agree on."""
    with Connection(address) as connection:
        found = json.loads(connection.send(ask).content)
    vector = np.array(found["data"][0]["embedding"] if isinstance(found, dict) else found[0])
    return vector / np.linalg.norm(vector)


def measure(address: str, asks: Asks, options: argparse.Namespace) -> Figures:
    """All figures of one server."""
    texts, seconds = asks["texts"], options.seconds
    clients = _LARGE_CLIENTS if options.large else _CLIENTS
    if not options.large:
        _saturate(address, texts, seconds / 4, num_clients=clients)  # to warm up
    figures: Figures = {"saturation": _saturate(address, texts, seconds, num_clients=clients)}
    if not options.large:
        rate = figures["saturation"]["requests_per_second"] / 2
        half = _open(address, texts, seconds, rate)
        figures["half"] = {"requests_per_second": rate, **latencies(half)}
    others = {kind: asks[kind] for kind in ("long", "rerank") if kind in asks}
    with _closed_loops(address, others, seconds) as answers:
        short = _open(address, asks["short"], seconds, options.short_rate)
    figures["mixed"] = {
        "short": latencies(short),
        **{kind: latencies(each) for kind, each in answers.items()},
    }
    return figures


def _saturate(
    address: str, asks: Sequence[Ask], seconds: float, *, num_clients: int
) -> dict[str, float]:
    answers: list[Answer] = []
    began = monotonic()
    closed_loop(address, asks, num_clients=num_clients, seconds=seconds, on_answer=answers.append)
    # What was begun before the end and done after it counts by the time that it took.
    elapsed = monotonic() - began
    done = [answer for answer in answers if answer.status == 200]
    if not done:
        raise RuntimeError(f"{address}: no request was answered")
    return {
        "requests_per_second": len(done) / elapsed,
        "tokens_per_second": sum(answer.ask.num_tokens for answer in done) / elapsed,
        "refused": len(answers) - len(done),
    }


def _open(address: str, asks: Sequence[Ask], seconds: float, rate: float) -> list[Answer]:
    """Answers to requests at random times, `rate` a second on average."""
    sent = [asks[number % len(asks)] for number in range(max(20, int(seconds * rate)))]
    return open_loop(address, sent, rate=rate, num_clients=_OPEN_CLIENTS)


@contextmanager
def _closed_loops(address: str, asks: Asks, seconds: float) -> Iterator[dict[str, list[Answer]]]:
    """While inside, one request of each kind is always under way."""
    answers: dict[str, list[Answer]] = {kind: [] for kind in asks}
    threads = [
        Thread(
            target=closed_loop,
            args=(address, each),
            kwargs={"num_clients": 1, "seconds": seconds, "on_answer": answers[kind].append},
        )
        for kind, each in asks.items()
    ]
    for thread in threads:
        thread.start()
    yield answers
    for thread in threads:
        thread.join()


def latencies(answers: Sequence[Answer]) -> dict[str, Any]:
    """Quantiles of what was answered, and how much was not."""
    seconds = [answer.seconds for answer in answers if answer.status == 200]
    quantiles = {
        f"{name}_seconds": float(np.quantile(seconds, q)) if seconds else None
        for name, q in (("median", 0.5), ("p99", 0.99), ("max", 1.0))
    }
    return {**quantiles, "answered": len(seconds), "refused": len(answers) - len(seconds)}


def summary(rounds: Sequence[Figures]) -> dict[str, float]:
    """The figures that targets are about: medians over the rounds."""
    paths = {name: path for name, path in _PATHS.items() if path[0] in rounds[0]}
    return {name: median(_at(each, path) for each in rounds) for name, path in paths.items()}


def ratios(rounds: Mapping[str, Sequence[Figures]]) -> dict[str, dict[str, float]]:
    """Of ours over a peer's at equal precision, and of `auto` over all: medians of the rounds'."""
    found: dict[str, dict[str, float]] = {}
    for our, their in _COMPARED:
        pairs = list(zip(rounds.get(our, ()), rounds.get(their, ()), strict=False))
        if pairs:
            found[f"{our} over {their}"] = {
                name: median(_at(o, path) / _at(t, path) for o, t in pairs)
                for name, path in _PATHS.items()
                if path[0] in pairs[0][0]
            }
    return found


def _at(value: Any, path: Sequence[str]) -> float:
    for key in path:
        value = value[key]
    return float("nan") if value is None else float(value)


def _asks(options: argparse.Namespace, tokenizer: Tokenizer) -> Asks:
    """All requests by kind: those of the throughput, and those of the mix."""
    short, long = short_and_long(options.data, tokenizer, num_short=400, num_long=20)
    if options.large:
        many, reranks = requests(options.data, tokenizer, num_texts=options.texts)
        return {"texts": many, "short": short, "long": long, "rerank": reranks}
    return {"texts": ragged(options.data, tokenizer, count=2_000), "short": short, "long": long}


def _sent_to(name: str, asks: Asks) -> Asks:
    """The requests as a server wants them."""
    if not name.startswith("infinity"):
        return asks
    return {
        kind: [
            replace(ask, path="/embeddings", body=ask.body.replace(b"inputs", b"input", 1))
            for ask in each
        ]
        for kind, each in asks.items()
    }


def _servers(models: tuple[Path, Path], options: argparse.Namespace) -> dict[str, Start]:
    given = (str(models[1]), "--max-wait=600", "--timeout=600")
    servers: dict[str, Start] = {
        f"ours {precision}": partial(ours, models[0], options=(*given, f"--precision={precision}"))
        for precision in ("auto", "float32")
    }
    for dtype in ("float32", "bfloat16"):
        peer = partial(sentence_transformers, *models, options.peer_python, dtype=dtype)
        servers[f"sentence-transformers {dtype}"] = peer
    if options.infinity is not None and not options.large:
        servers["infinity float32"] = partial(infinity, models[0], options.infinity)
    return servers


def _options() -> argparse.Namespace:
    made = bare_parser(
        __doc__,
        output=(FOLDER / "serving" / "base.json", "file of the result"),
        size=("base", "a preset"),
        layers=(int, "fewer than the size has, for a quick look"),
        rounds=(2, "turns of every server"),
        seconds=(60.0, "of each part"),
        large=(False, "requests of many texts"),
        texts=(500, "in each of these"),
        short_rate=(2.0, "short texts a second in the mix"),
        peer_python=(sys.executable, "with FastAPI and sentence-transformers, for the peer"),
        infinity=(Path, "the program infinity_emb, if there is one"),
    )
    made.add_argument("data", type=Path)
    made.add_argument("--servers", nargs="*", help="only these")
    return made.parse_args()


if __name__ == "__main__":
    main()
