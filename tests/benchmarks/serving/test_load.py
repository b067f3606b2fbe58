"""The clients and the sums of the serving benchmarks."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import sleep

import pytest

from benchmarks.serving.__main__ import latencies, summary
from benchmarks.serving.load import Answer, Connection, closed_loop, embed_ask, open_loop


class Echo(BaseHTTPRequestHandler):
    """Gives bodies back; those that say so are refused."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(429 if b"refuse" in body else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Brief(Echo):
    """Closes each connection after its answer, without a word, as servers do with idle ones."""

    def do_POST(self) -> None:
        super().do_POST()
        self.close_connection = True


@contextmanager
def served(handler: type[Echo]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def address() -> Iterator[str]:
    with served(Echo) as found:
        yield found


def test_a_connection_that_was_closed_while_it_was_idle_is_opened_anew() -> None:
    ask = embed_ask("a text", 2)
    with served(Brief) as address, Connection(address) as connection:
        assert connection.send(ask).status == 200
        sleep(0.1)
        assert connection.send(ask).status == 200


def test_a_server_that_is_gone_gives_the_status_0() -> None:
    with served(Echo) as address, Connection(address) as connection:
        pass
    assert connection.send(embed_ask("a text", 2)).status == 0


def test_every_request_is_sent_once_and_answered(address: str) -> None:
    answers: list[Answer] = []
    asks = [embed_ask(f"text {number}", 3) for number in range(20_000)]
    closed_loop(
        address,
        asks,
        num_clients=3,
        seconds=0.3,
        on_answer=answers.append,
    )
    bodies = sorted(answer.content for answer in answers)
    assert bodies == sorted(ask.body for ask in asks[: len(answers)])
    assert all(answer.status == 200 and answer.content == answer.ask.body for answer in answers)


def test_requests_are_due_at_random_times_of_a_rate(address: str) -> None:
    asks = [embed_ask(text, 1) for text in ("a", "refuse", "b") * 20]
    answers = open_loop(address, asks, rate=200, num_clients=8)
    assert sorted(answer.content for answer in answers) == sorted(ask.body for ask in asks)
    due = sorted(answer.due for answer in answers)
    assert due[-1] - due[0] == pytest.approx(60 / 200, rel=0.5)
    assert all(answer.done >= answer.due for answer in answers)
    found = latencies(answers)
    assert (found["answered"], found["refused"]) == (40, 20)
    assert found["median_seconds"] <= found["p99_seconds"] <= found["max_seconds"]


def test_a_server_that_is_gone() -> None:
    with Connection("http://127.0.0.1:9") as connection:
        assert connection.send(embed_ask("a", 1)).status == 0


def test_medians_of_rounds() -> None:
    rounds = [
        {
            "saturation": {"tokens_per_second": number},
            "half": {"median_seconds": number, "p99_seconds": number},
            "mixed": {"short": {"p99_seconds": number}, "long": {"median_seconds": None}},
        }
        for number in (1, 2, 9)
    ]
    found = summary(rounds)
    assert found["tokens_per_second"] == found["short_p99_beside_long_seconds"] == 2
    assert math.isnan(found["long_median_seconds"])
