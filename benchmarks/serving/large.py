"""Claim: requests of many texts are answered 2 times as fast, and queries do not wait for them.

    python -m benchmarks.serving.large DATA --peer-python PEERS/bin/python

sentence-transformers behind FastAPI in the obvious form is the peer (`peer_fastapi.py`), with the
same weights in the same precision. Each server runs alone in a process of its own with all cores,
in turn: A B A B. Of each are measured

- tokens a second of requests of 500 texts, from clients that ask again when they are answered;
- the 99th percentile of queries at random times, while one client sends reranks of 100 texts and
  another texts of 8,192 tokens, one after another.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from threading import Thread
from time import monotonic
from typing import Any

import numpy as np

from benchmarks.command import bare_parser
from benchmarks.results import FOLDER, surroundings, write
from benchmarks.serving.__main__ import latencies
from benchmarks.serving.load import Answer, Ask, Connection, closed_loop, embed_ask, open_loop
from benchmarks.serving.servers import free_port, ours, running
from benchmarks.serving.texts import (
    model_folder,
    ragged_texts,
    reranker_folder,
    short_and_long,
)
from modernbert.tokenizer.tokenizer import Tokenizer

_TIMEOUT_SECONDS = 1800.0  # of a request of many texts; the peer of base size takes minutes

Start = Callable[[], AbstractContextManager[str]]


def main() -> None:
    """Measure and write."""
    arguments = _arguments()
    folder = model_folder(arguments.data, size=arguments.size, num_layers=arguments.layers)
    reranker = reranker_folder(arguments.data, size=arguments.size, num_layers=arguments.layers)
    asks = _Asks(arguments.data, Tokenizer.from_pretrained(folder), arguments.texts)
    result: dict[str, Any] = {
        "surroundings": surroundings(num_threads=0),
        "models": [folder.name, reranker.name],
        "rounds": [],
    }
    for _ in range(arguments.rounds):
        for dtype in arguments.precisions:
            pair = {}
            for name, start in _servers(folder, reranker, dtype, arguments.peer_python).items():
                with start() as address:
                    pair[name] = _measure(address, asks, arguments)
            _require_equal(pair)
            result["rounds"].append({"dtype": dtype, **_told(pair)})
            print(json.dumps(result["rounds"][-1], indent=1), flush=True)
            result["summary"] = _summary(result["rounds"])
            write(arguments.output, result)
    print(json.dumps(result["summary"]))


class _Asks:
    """All requests: of many texts, queries, reranks and long texts."""

    def __init__(self, data: Path, tokenizer: Tokenizer, num_texts: int) -> None:
        texts = ragged_texts(data, count=4 * num_texts)
        lengths = [len(ids) for ids in tokenizer.encode_batch(texts)]
        kept = [
            (text, length) for text, length in zip(texts, lengths, strict=True) if length < 1024
        ]
        self.many = [
            embed_ask("many", "/embed", [text for text, _ in part], sum(n for _, n in part))
            for part in (kept[start::4][:num_texts] for start in range(4))
        ]
        self.queries, self.long = short_and_long(data, tokenizer, num_short=400, num_long=20)
        passages = [text for text, length in kept if length < 256]
        self.reranks = []
        for number in range(5):
            query = json.loads(self.queries[number].body)["inputs"]
            body = {"query": query, "texts": passages[number : number + 100]}
            self.reranks.append(Ask("rerank", "/rerank", json.dumps(body).encode(), 0))


def _measure(address: str, asks: _Asks, arguments: argparse.Namespace) -> dict[str, Any]:
    with Connection(address, _TIMEOUT_SECONDS) as connection:  # to warm up, and to compare
        first = json.loads(connection.send(asks.many[0]).content)
    return {
        "first": np.array(first, np.float32),
        "tokens_per_second": _throughput(address, asks.many, arguments.requests),
        "mixed": _mixed(address, asks, arguments.seconds, arguments.query_rate),
    }


def _throughput(address: str, asks: Sequence[Ask], num_requests: int) -> float:
    """Tokens a second of two clients with some requests each."""
    answers: list[Answer] = []

    def client(first: int) -> None:
        with Connection(address, _TIMEOUT_SECONDS) as connection:
            for number in range(num_requests):
                answers.append(connection.send(asks[(first + number) % len(asks)]))

    began = monotonic()
    threads = [Thread(target=client, args=(2 * number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if any(answer.status != 200 for answer in answers):
        raise RuntimeError(f"{address}: refused a request of many texts: {answers[0].content!r}")
    return sum(answer.ask.num_tokens for answer in answers) / (monotonic() - began)


def _mixed(address: str, asks: _Asks, seconds: float, query_rate: float) -> dict[str, Any]:
    """Queries at random times while there is always a rerank and a long text under way."""
    others: dict[str, list[Answer]] = {"rerank": [], "long": []}
    threads = [
        Thread(
            target=closed_loop,
            args=(address, lambda number, sent=sent: sent[number % len(sent)]),
            kwargs={"num_clients": 1, "seconds": seconds, "on_answer": others[name].append},
        )
        for name, sent in (("rerank", asks.reranks), ("long", asks.long))
    ]
    for thread in threads:
        thread.start()
    queries = [asks.queries[number % 400] for number in range(max(5, int(seconds * query_rate)))]
    answers = open_loop(address, queries, rate=query_rate, num_clients=64)
    for thread in threads:
        thread.join()
    return {"query": latencies(answers), **{name: latencies(x) for name, x in others.items()}}


def _require_equal(pair: dict[str, dict[str, Any]]) -> None:
    """Refuse to compare servers that do not compute the same."""
    own, other = (pair[name].pop("first") for name in ("ours", "peer"))
    if (similarity := float((own * other).sum(1).min())) < 0.99:
        raise RuntimeError(f"the vectors of both servers have a cosine of {similarity}")


def _told(pair: dict[str, dict[str, Any]]) -> dict[str, Any]:
    own, other = pair["ours"], pair["peer"]
    return {
        **pair,
        "throughput": own["tokens_per_second"] / other["tokens_per_second"],
        "query_p99": own["mixed"]["query"]["p99_seconds"] / other["mixed"]["query"]["p99_seconds"],
    }


def _summary(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds of ours over the peer's."""
    return {
        dtype: {
            name: median(each[name] for each in rounds if each["dtype"] == dtype)
            for name in ("throughput", "query_p99")
        }
        for dtype in dict.fromkeys(each["dtype"] for each in rounds)
    }


def _servers(folder: Path, reranker: Path, dtype: str, python: str) -> dict[str, Start]:
    script = Path(__file__).with_name("peer_fastapi.py")

    def peer() -> AbstractContextManager[str]:
        port = free_port()
        command = [python, str(script), str(folder), str(reranker), str(port), dtype]
        return running(command, f"http://127.0.0.1:{port}", "/health", {"PYTHONPATH": ""})

    options = (str(reranker), f"--precision={dtype}", "--max-wait=600", "--timeout=600")
    return {"ours": lambda: ours(folder, options=options), "peer": peer}


def _arguments() -> argparse.Namespace:
    made = bare_parser(
        __doc__,
        output=(FOLDER / "serving" / "large.json", "file of the result"),
        peer_python=(sys.executable, "with FastAPI, for the peer"),
        size=("base", "a preset"),
        layers=(int, "fewer than the size has, for a quick look"),
        rounds=(2, "turns of both servers"),
        texts=(500, "in each request of many"),
        requests=(2, "of many texts, by each client"),
        seconds=(60.0, "of the mix"),
        query_rate=(2.0, "queries a second in the mix"),
    )
    made.add_argument("data", type=Path)
    made.add_argument("--precisions", nargs="*", default=["float32", "bfloat16"])
    return made.parse_args()


if __name__ == "__main__":
    main()
