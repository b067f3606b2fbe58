"""Claim: no request within the limits holds the event loop for more than a tenth of a second.

    python -m tests.reliability.held_loop

A server with a tiny model of every kind is sent the worst bodies that were found for each route,
one at a time. Two times are taken of each: the CPU time of the longest callback of the event loop,
which a crowded machine does not lengthen much; and the longest time in which the loop did not come
around though a core was free for it, which also counts other threads that held the interpreter.
That one is an upper bound: a thread that holds the interpreter may be waiting for a core itself.
"""

import asyncio
import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.reliability.hostile import connected, hostile_bodies

from benchmarks.command import bare_parser

MOST_MS = 100.0
_TICK_SECONDS = 0.002
_BYTES = 1_900_000
_TEXTS = 2048


def worst_bodies() -> dict[str, tuple[str, bytes]]:
    """Bodies within the default limits, for every route, by name."""
    found = {f"/embed: {name}": each for name, each in hostile_bodies().items() if "/embed" in each}
    found |= {name: each for name, each in hostile_bodies().items() if "/embed" not in each}
    for path, fields in _fields_of_routes().items():
        for name, content in fields.items():
            found[f"{path}: {name}"] = (path, json.dumps(content).encode())
    return found


def _fields_of_routes() -> dict[str, dict[str, Any]]:
    word, many = "a" * _BYTES, "a " * (_BYTES // 2)
    half = "b " * (_BYTES // 4)
    texts = [f"{number} " + "c " * 440 for number in range(_TEXTS)]
    rows = [[5] * 140] * _TEXTS
    mask = "[MASK]" * (_BYTES // 6)
    inputs = {
        "one word": {"inputs": word},
        "many words": {"inputs": many},
        "many texts": {"inputs": texts},
        "many texts, truncated": {"inputs": texts, "truncate": True},
        "many spaces": {"inputs": " " * _BYTES},
        "many letters of another script": {"inputs": "\u4e2d" * (_BYTES // 6)},
    }
    ids = {
        "one list of ids": {"inputs": [[5] * (_BYTES // 3)]},
        "many lists of ids": {"inputs": rows},
        "truncated lists of ids": {"inputs": rows, "truncate": True},
    }
    asked = {
        "many texts": {"query": "b", "texts": texts, "truncate": True},
        "a long query": {"query": half, "texts": [half[:440]] * _TEXTS, "truncate": True},
        "a query of one word": {"query": word[: _BYTES // 2], "texts": ["a"] * _TEXTS},
        "many empty texts": {"query": "", "texts": [""] * _TEXTS, "return_text": True},
    }
    listed = {
        name: {"query": each["query"], "documents": each["texts"]} for name, each in asked.items()
    }
    question = {"question": "a?", "context": "b " * 440}
    return {
        "/embed": {**inputs, **ids},
        "/embed_all": {**inputs, **ids},
        "/embed_sparse": {**inputs, **ids},
        "/v1/embeddings": {
            name: {"input": each["inputs"], "encoding_format": "base64"}
            for name, each in {**inputs, **ids}.items()
        },
        "/similarity": {
            "many sentences": {"inputs": {"source_sentence": "a", "sentences": texts}},
            "one word": {"inputs": {"source_sentence": word, "sentences": ["a"]}},
        },
        "/predict": {
            **inputs,
            "many pairs": {"inputs": [[each[:440], each[:440]] for each in texts]},
            "a long pair": {"inputs": [[half, half]], "truncate": True},
            "a list of many words": {"inputs": [["a"] * (_BYTES // 5)]},
        },
        "/rerank": asked,
        "/v1/rerank": listed,
        "/v2/rerank": listed,
        "/tag": {
            **inputs,
            "one list of words": {"inputs": [["a"] * (_BYTES // 5)], "truncate": True},
            "many lists of words": {"inputs": [["a"] * 180] * _TEXTS, "truncate": True},
        },
        "/answer": {
            "a long context": {"inputs": {"question": "a", "context": many}},
            "a long question": {"inputs": {"question": many, "context": "a"}},
            "one word": {"inputs": {"question": "a", "context": word}},
            "many questions": {"inputs": [question] * _TEXTS},
        },
        "/fill-mask": {
            "many masks": {"inputs": mask},
            "many texts": {"inputs": ["[MASK] " + "a " * 440] * _TEXTS},
            "many masks, truncated": {"inputs": mask, "truncate": True},
            "masks in many texts": {
                "inputs": ["[MASK]" * 60] * _TEXTS,
                "truncate": True,
                "parameters": {"top_k": 100},
            },
        },
        "/tokenize": {**inputs, "different texts": {"inputs": texts}},
        "/decode": {
            "one list": {"ids": [5] * 299_000},
            "many lists": {"ids": rows},
            "more than allowed": {"ids": [[5] * (_BYTES // 3)]},
        },
        "/": {**inputs, "unknown field": {"inputs": "a", **{str(n): n for n in range(150_000)}}},
    }


def _raw_requests() -> dict[str, bytes]:
    """Requests that are slow to take apart, whatever is in them."""
    head = b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return {
        "pieces of a byte": head
        + b"transfer-encoding: chunked\r\n\r\n"
        + b"1\r\n \r\n" * 300_000
        + b"0\r\n\r\n",
        "many small headers": head + b"a:\r\n" * 15_000 + b"\r\n",
        "one long header": head + b"a:" + b"b" * 65_000 + b"\r\n\r\n",
        "a long address": b"GET /" + b"%41" * 20_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "requests one after another": b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n" * 6_000,
        "refused requests one after another": b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n" * 6_000,
        "cookies": head + b"cookie: " + b"a=b;" * 15_000 + b"\r\n\r\n",
    }


def ask(address: str, path: str, body: bytes) -> int:
    """Send one body; the status of the answer, all of which is read."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    with connected(address, 120) as connection:
        with contextlib.suppress(OSError):  # refused before all of it had arrived
            connection.sendall(head.encode() + body)
        return _status(connection)


def _send_raw(address: str, content: bytes) -> int:
    with connected(address, 30) as connection:
        connection.settimeout(10)
        sender = threading.Thread(target=_send, args=(connection, content), daemon=True)
        sender.start()
        status = _status(connection)
        sender.join(1)
        return status


def _send(connection: socket.socket, content: bytes) -> None:
    try:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        return


def _status(connection: socket.socket) -> int:
    try:
        answer = connection.recv(1 << 16)
        while connection.recv(1 << 20):
            pass
        return int(answer.split()[1]) if answer else 0
    except OSError:
        return 0


class Watch:
    """The longest times of the event loop of this process, in memory that children share."""

    def __init__(self) -> None:
        context = get_context("fork")
        self.callback = context.Value("d", 0.0)
        self.blocked = context.Value("d", 0.0)

    def install(self) -> None:
        """Take the CPU time of each callback of event loops."""
        run, worst = asyncio.Handle._run, self.callback

        def timed(handle: asyncio.Handle) -> None:
            began = time.thread_time()
            run(handle)
            worst.value = max(worst.value, time.thread_time() - began)

        asyncio.Handle._run = timed  # type: ignore[method-assign]

    async def tick(self) -> None:
        """Come around again and again, and note the longest time away."""
        task = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")

        def waited_seconds() -> float:
            return int(task.read_text().split()[1]) / 1e9

        began, waited = time.monotonic(), waited_seconds()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now, waited_now = time.monotonic(), waited_seconds()
            away = now - began - _TICK_SECONDS - (waited_now - waited)
            self.blocked.value = max(self.blocked.value, away)
            began, waited = now, waited_now


def attacks(watch: Watch, address: str, only: str) -> Iterator[dict[str, Any]]:
    """Send everything, and say what each did to the loop."""
    bodies: Mapping[str, Any] = {
        **{name: ("raw", content) for name, content in _raw_requests().items()},
        **worst_bodies(),
    }
    for name, (path, body) in bodies.items():
        if only not in name:
            continue
        watch.callback.value = watch.blocked.value = 0.0
        began = time.monotonic()
        status = _send_raw(address, body) if path == "raw" else ask(address, path, body)
        time.sleep(0.05)
        yield {
            "request": name,
            "status": status,
            "longest_callback_cpu_ms": round(1000 * watch.callback.value, 1),
            "longest_away_ms": round(1000 * watch.blocked.value, 1),
            "seconds": round(time.monotonic() - began, 2),
        }


def serve(folder: Path, watch: Watch, listener: socket.socket) -> None:
    """Serve a model of every kind; ends with the process."""
    import gc
    import sys

    from tests.reliability.samples import write_samples

    from modernbert.serving import server as serving
    from modernbert.serving.models import load
    from modernbert.serving.service import Service

    names = "embedder", "masked_lm", "classifier", "tagger", "answerer", "reranker", "sparse"
    samples = write_samples(folder)
    service = Service([load(samples[name], name=name) for name in (*names, "multi_vector")])
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(serving._SWITCH_SECONDS)
    watch.install()

    async def run() -> None:
        ticking = asyncio.create_task(watch.tick())
        await serving.Server(service, listener).serve([listener])
        ticking.cancel()

    service.start()
    asyncio.run(run())


def measured(only: str = "") -> Iterator[dict[str, Any]]:
    """Serve models, send everything with `only` in its name, and yield what each request did."""
    watch, context = Watch(), get_context("fork")
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder:
        server = context.Process(target=serve, args=(Path(folder), watch, listener), daemon=True)
        server.start()
        try:
            while ask(address, "/tokenize", b'{"inputs": "a"}') != 200:
                time.sleep(0.5)
            yield from attacks(watch, address, only)
        finally:
            server.terminate()
            server.join()


def main() -> int:
    """Print a line for each request; 1 where one of them held the loop for too long."""
    arguments = bare_parser(
        __doc__,
        only=("", "requests with this in their name"),
        most_ms=(MOST_MS, "that the loop may be held"),
    ).parse_args()
    slow = 0
    for found in measured(arguments.only):
        is_slow = found["longest_callback_cpu_ms"] > arguments.most_ms
        slow += is_slow
        print("SLOW" if is_slow else "ok  ", json.dumps(found), flush=True)
    return int(slow > 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
