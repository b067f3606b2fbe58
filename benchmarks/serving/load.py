"""Clients that put a server under load, each thread with a connection of its own."""

import http.client
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from threading import Lock, Thread
from time import monotonic, sleep
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np


@dataclass(frozen=True)
class Ask:
    """One request that can be sent."""

    path: str
    body: bytes
    num_tokens: int


@dataclass(frozen=True)
class Answer:
    """What came back.

    due: when it should have been sent, so that a client that falls behind hides no waiting.
    """

    ask: Ask
    status: int
    content: bytes
    due: float
    done: float

    @property
    def seconds(self) -> float:
        """From when it was due to its end."""
        return self.done - self.due


class Connection:
    """One client's connection, opened anew after an error."""

    def __init__(self, address: str, timeout: float = 1_800.0) -> None:
        parts = urlsplit(address)
        self._http = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)

    def send(self, ask: Ask, due: float | None = None) -> Answer:
        """Send one request and wait; a lost connection has the status 0.

        A connection that the server has closed meanwhile, because it stood idle, is opened anew.
        """
        began = monotonic() if due is None else due
        is_kept = self._http.sock is not None
        try:
            status, content = self._ask(ask)
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            if is_kept and isinstance(error, http.client.RemoteDisconnected | BrokenPipeError):
                return self.send(ask, began)
            status, content = 0, b""
        return Answer(ask, status, content, began, monotonic())

    def _ask(self, ask: Ask) -> tuple[int, bytes]:
        self._http.request("POST", ask.path, ask.body, {"content-type": "application/json"})
        response = self._http.getresponse()
        return response.status, response.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()


def embed_ask(inputs: Any, num_tokens: int) -> Ask:
    """A request to embed."""
    return Ask("/embed", json.dumps({"inputs": inputs}).encode(), num_tokens)


def closed_loop(
    address: str,
    asks: Sequence[Ask],
    *,
    num_clients: int,
    seconds: float,
    on_answer: Callable[[Answer], None],
) -> None:
    """Clients that each send the next request when the one before is answered.

    asks: sent in their order, again and again.
    on_answer: is called from the clients' threads.
    """
    waiting, lock, end = cycle(asks), Lock(), monotonic() + seconds

    def client() -> None:
        with Connection(address) as connection:
            while monotonic() < end:
                with lock:
                    ask = next(waiting)
                on_answer(connection.send(ask))

    _run(client, num_clients)


def open_loop(
    address: str,
    asks: Sequence[Ask],
    *,
    rate: float,
    num_clients: int,
    seed: int = 0,
) -> list[Answer]:
    """Requests at random times, `rate` a second on average, whether or not others are answered."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, len(asks))
    begin = monotonic() + 0.1
    times = (begin + gaps.cumsum()).tolist()
    waiting, lock, answers = iter(zip(asks, times, strict=True)), Lock(), []

    def client() -> None:
        with Connection(address) as connection:
            while True:
                with lock:
                    ask, due = next(waiting, (None, 0.0))
                if ask is None:
                    break
                sleep(max(0.0, due - monotonic()))
                answers.append(connection.send(ask, due))

    _run(client, num_clients)
    return answers


def _run(client: Callable[[], None], num_clients: int) -> None:
    threads = [Thread(target=client) for _ in range(num_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
