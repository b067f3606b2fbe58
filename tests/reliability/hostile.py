"""Clients that mean harm, and how long `/health` takes beside them.

Claim: connections that idle or drip, bodies made to be slow, and readers that do not read leave
`/health` quick, and the server's memory bounded.

    python -m tests.reliability.hostile MODEL --connections 2000

Each attack is bounded in number and time, and goes to a server on this machine alone.
"""

import json
import resource
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from tests.reliability.soak import metrics

from benchmarks.command import bare_parser
from benchmarks.serving.servers import ours

_HEAD = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
_WORD = "a" * 1_900_000


@dataclass
class Outcome:
    """What was seen of a server during one attack.

    Attributes:
        health_seconds: How long each `GET /health` took, on a connection of its own.
        failures: Those of them that were not answered with 200.
        counts: What else was counted.
    """

    health_seconds: list[float] = field(default_factory=list)
    failures: int = 0
    counts: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """The outcome as plain values; seconds as milliseconds."""
        seconds = 1000 * np.array(self.health_seconds or [np.nan])
        return {
            "health_asked": len(self.health_seconds) + self.failures,
            "health_failed": self.failures,
            "health_median_ms": round(float(np.median(seconds)), 1),
            "health_p99_ms": round(float(np.percentile(seconds, 99)), 1),
            "health_max_ms": round(float(seconds.max()), 1),
            **self.counts,
        }


def hostile_bodies() -> dict[str, tuple[str, bytes]]:
    """Bodies within the default limits that are slow to read or to answer, by name."""
    word = json.dumps({"inputs": _WORD}).encode()
    return {
        "one word": ("/embed", word),
        "one word, truncated": ("/embed", word[:-1] + b', "truncate": true}'),
        "one word, tokens": ("/tokenize", word),
        "many words, tokens": ("/tokenize", json.dumps({"inputs": "a " * 900_000}).encode()),
        "lists": ("/embed", b'{"inputs": [' + b",".join([b"[]"] * 600_000) + b"]}"),
        "lists of an id": ("/embed", b'{"inputs": [' + b",".join([b"[1]"] * 450_000) + b"]}"),
        "token ids": ("/embed", b'{"inputs": [' + b",".join([b"1"] * 900_000) + b"]}"),
        "empty texts": ("/embed", b'{"inputs": [' + b",".join([b'""'] * 600_000) + b"]}"),
        "different texts": (
            "/embed",
            json.dumps({"inputs": [f"{number:x}" for number in range(180_000)]}).encode(),
        ),
        "unknown fields": (
            "/embed",
            b"{" + b",".join(b'"%d":{}' % n for n in range(150_000)) + b', "inputs": "a"}',
        ),
        "long number": ("/embed", b'{"inputs": [1' + b"0" * 1_900_000 + b"]}"),
        "long name of a model": (
            "/embed",
            b'{"inputs": "a", "model": "' + b"m" * 1_900_000 + b'"}',
        ),
        "escapes": ("/embed", b'{"inputs": "' + b"\\u00e9" * 300_000 + b'"}'),
        "decoded ids": ("/decode", b'{"ids": [' + b",".join([b"5"] * 900_000) + b"]}"),
    }


@contextmanager
def watching_health(address: str, *, every_seconds: float = 0.02) -> Iterator[Outcome]:
    """Ask for `/health` again and again, on a new connection each time.

    A process of its own asks, as the threads of an attack would hold up one of theirs.
    """
    outcome, spawning = Outcome(), get_context("spawn")
    here, there = spawning.Pipe()
    process = spawning.Process(target=_watch_health, args=(there, address, every_seconds))
    process.start()
    try:
        here.recv()  # it has begun
        yield outcome
    finally:
        here.send("stop")
        outcome.health_seconds, outcome.failures = here.recv()
        process.join()


def _watch_health(parent: Connection, address: str, every_seconds: float) -> None:
    seconds, failures = [], 0
    parent.send("began")
    while not parent.poll(every_seconds):
        try:
            seconds.append(health(address))
        except (OSError, ValueError):
            failures += 1
    parent.send((seconds, failures))


def health(address: str, timeout: float = 10.0) -> float:
    """How many seconds an answer of `/health` takes, the connection included.

    Raises:
        OSError: No connection, or no answer in time.
        ValueError: Another answer than 200.
    """
    began = monotonic()
    with connected(address, timeout) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        answer = connection.recv(1000)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ValueError(answer)
    return monotonic() - began


def connected(address: str, timeout: float = 10.0) -> socket.socket:
    """A bare connection to a server."""
    parts = urlsplit(address)
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=timeout)


def many_connections(address: str, *, number: int, seconds: float, drip: bytes = b"") -> Outcome:
    """Open connections that send nothing, or a byte of a head now and then.

    Args:
        address: The server's.
        number: How many connections.
        seconds: How long they are kept.
        drip: What each sends, a byte a second.
    """
    with watching_health(address) as outcome, ExitStack() as stack:
        opened = [stack.enter_context(connected(address)) for _ in range(number)]
        end, at = monotonic() + seconds, 0
        while monotonic() < end:
            began = monotonic()
            for connection in opened if at < len(drip) else ():
                _send(connection, drip[at : at + 1])
            at += 1
            sleep(max(0.0, 1 - (monotonic() - began)))
        outcome.counts |= {"opened": len(opened), "closed_by_server": sum(map(_is_closed, opened))}
    return outcome


def slow_body(address: str, path: str, body: bytes, *, number: int = 1) -> Outcome:
    """Send a body over some connections at once and wait for the answers."""
    outcome_counts: dict[str, Any] = {"statuses": [], "bytes": 0, "seconds": 0.0}

    def ask() -> None:
        began = monotonic()
        with connected(address, 120) as connection:
            head = _HEAD % path.encode() + b"connection: close\r\n"
            connection.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
            answer = connection.recv(1 << 20)
            outcome_counts["statuses"].append(int(answer.split()[1]))
            outcome_counts["bytes"] += len(answer)
            while answer := connection.recv(1 << 20):
                outcome_counts["bytes"] += len(answer)
        outcome_counts["seconds"] = round(monotonic() - began, 2)

    with watching_health(address) as outcome:
        threads = [Thread(target=ask) for _ in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sleep(0.1)
    outcome.counts |= outcome_counts
    return outcome


def readers_that_do_not_read(address: str, *, number: int, seconds: float) -> Outcome:
    """Ask for answers of tens of megabytes and read none of them."""
    body = json.dumps({"inputs": ["a " * 200] * 32}).encode()
    head = _HEAD % b"/embed_all" + b"content-length: %d\r\n\r\n" % len(body)
    before = metrics(address)["process_resident_memory_bytes"]
    most = before
    with watching_health(address) as outcome, ExitStack() as stack:
        opened = [stack.enter_context(_reading_little(address)) for _ in range(number)]
        for connection in opened:
            _send(connection, head + body)
        end = monotonic() + seconds
        while monotonic() < end:
            sleep(0.5)
            most = max(most, metrics(address)["process_resident_memory_bytes"])
        counted = metrics(address)
        outcome.counts |= {
            "opened": number,
            "running": counted["te_request_running"],
            "closed_by_server": sum(map(_is_closed, opened)),
            "megabytes_more": round((most - before) / 1e6),
        }
    return outcome


def _reading_little(address: str) -> socket.socket:
    parts = urlsplit(address)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((parts.hostname, parts.port))
    return connection


def _send(connection: socket.socket, data: bytes) -> None:
    try:
        connection.sendall(data)
    except OSError:  # closed by the server: counted at the end
        return


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while data := connection.recv(1 << 16):
            del data
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def attack(address: str, *, connections: int, seconds: float) -> dict[str, Any]:
    """All attacks, one after another, and what came of each."""
    drip = b"GET /health HTTP/1.1\r\nx-slow: " + b"a" * 1000
    attacks: Mapping[str, Callable[[], Outcome]] = {
        "idle connections": lambda: many_connections(address, number=connections, seconds=seconds),
        "dripping connections": lambda: many_connections(
            address, number=connections, seconds=seconds, drip=drip
        ),
        **{
            f"body: {name}": lambda path=path, body=body: slow_body(address, path, body)
            for name, (path, body) in hostile_bodies().items()
        },
        "readers that do not read": lambda: readers_that_do_not_read(
            address, number=40, seconds=seconds
        ),
    }
    return {name: each().summary() for name, each in attacks.items()}


def raise_descriptor_limit() -> None:
    """Let this process have as many connections as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Attack a server of a model, and print what came out as JSON."""
    made = bare_parser(
        __doc__, connections=(2000, "idle or dripping ones"), seconds=(15.0, "of each attack")
    )
    made.add_argument("model", type=Path)
    arguments = made.parse_args()
    raise_descriptor_limit()
    with ours(arguments.model) as address:
        for name, found in attack(
            address, connections=arguments.connections, seconds=arguments.seconds
        ).items():
            print(name, json.dumps(found))


if __name__ == "__main__":
    main()
