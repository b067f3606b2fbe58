"""Connections: how many, how long, and who may make them."""

import json
import resource
import socket
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from tests.reliability.hostile import connected, health, many_connections, readers_that_do_not_read
from tests.serving.conftest import Serve, connect, text_of
from tests.serving.test_http import blocked as blocked
from tests.serving.test_http import refused, send, status, until

from modernbert.serving.connections import allowed_connections
from modernbert.serving.server import bind

HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes a connection; waits for it."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("drip", [b"", b"GET /health HTTP/1.1\r\nx-slow: aaaaaaaa"])
def test_more_idle_or_dripping_connections_than_there_may_be(serve: Serve, drip: bytes) -> None:
    client, _ = serve("embedder", max_connections=400)
    outcome = many_connections(str(client.base_url), number=700, seconds=3, drip=drip)
    assert outcome.failures == 0 and outcome.health_seconds
    assert outcome.counts["closed_by_server"] >= 200


def test_a_request_that_has_arrived_is_not_given_up_for_another(blocked: Any) -> None:
    client, _, block = blocked(max_connections=4)
    first = send(client, "a")
    assert block.began.wait(20)
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connect(client))
        assert health(str(client.base_url)) > 0
        block.go.set()
        assert status(first) == 200


def test_connections_send_at_once() -> None:
    """An answer's body does not wait for the acknowledgement of its head (Nagle's algorithm)."""
    with bind("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_connections_that_wait_for_a_head_or_stay_idle_are_closed(serve: Serve) -> None:
    client, service = serve("embedder", header_seconds=0.3, idle_seconds=0.6)
    address = str(client.base_url)
    with connected(address) as idle, connected(address) as dripping, connected(address) as used:
        dripping.sendall(b"GET /health HT")
        used.sendall(HEALTH)
        assert used.recv(1000).startswith(b"HTTP/1.1 200")
        assert is_closed(idle) and is_closed(dripping)
        used.sendall(HEALTH)  # it may be idle for longer than a head may take
        assert used.recv(1000).startswith(b"HTTP/1.1 200")
        used.sendall(b"GET")
        assert is_closed(used)
    until(lambda: service.num_running == 0)


def test_descriptors(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    limits = [1024, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, given: limits.__setitem__(0, given[0]))
    assert allowed_connections(500) == 500 and limits[0] == 1024
    assert allowed_connections(2048) == 2048 and limits[0] == 2304
    assert not caplog.records
    assert allowed_connections(5000) == 4096 - 256 and limits[0] == 4096
    assert "3840 connections" in caplog.text
    limits[:] = [resource.RLIM_INFINITY] * 2
    assert allowed_connections(5000) == 5000


def test_readers_that_do_not_read_are_counted_and_cut_off(serve: Serve) -> None:
    client, service = serve("embedder", send_seconds=1.0)
    body = json.dumps({"inputs": [text_of(90)] * 400}).encode()
    with connect(client) as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.sendall(
            b"POST /embed_all HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            + b"content-length: %d\r\n\r\n" % len(body)
            + body
        )
        until(lambda: 'te_request_success{route="/embed_all"}' in client.get("/metrics").text)
        assert service.num_running == service.num_computing == 1
        assert service.memory.num_bytes > 1_000_000
        until(lambda: service.num_running == 0)
    until(lambda: service.memory.num_bytes == 0)  # the client may have the answer sooner
    assert 'te_request_failure{err="disconnected"} 1.0' in client.get("/metrics").text


def test_answers_are_held_within_a_limit(serve: Serve) -> None:
    client, service = serve("embedder", max_held_bytes=200_000)
    answer = client.post("/embed_all", json={"inputs": [text_of(90)] * 40})
    assert "bodies and answers" in refused(answer, 429)
    assert int(answer.headers["retry-after"]) >= 1
    assert "bodies" in refused(client.post("/embed", json={"inputs": "a" * 300_000}), 429)
    assert client.post("/embed", json={"inputs": "a"}).status_code == 200
    until(lambda: service.memory.num_bytes == 0)  # the client may have the answer sooner
    outcome = readers_that_do_not_read(str(client.base_url), number=3, seconds=0.5)
    assert outcome.failures == 0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"host": "localhost:8080"}, 200),
        ({"host": "[::1]:8080"}, 200),
        ({"host": "127.0.0.1"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "localhost.evil.example:8080"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "[::1"}, 403),
        ({"host": "LOCALHOST.:99999"}, 200),
        ({"host": "[::1]:80"}, 200),
        ({"host": "evil.example@127.0.0.1"}, 403),
        ({"host": "127.0.0.1/evil.example"}, 403),
        ({"host": "127.0.0.1#evil.example"}, 403),
        ({"host": "localhost:evil.example"}, 403),
        ({"host": "localhost,evil.example"}, 403),
        ({"host": "localhost", "origin": "http://localhost@evil.example"}, 403),
        ({"host": "localhost", "origin": "http://evil.example@localhost"}, 403),
        ({"host": "localhost", "origin": "localhost"}, 403),
        ({"host": ""}, 403),
        ({"host": "localhost", "origin": "http://localhost:3000"}, 200),
        ({"host": "localhost", "origin": "https://evil.example"}, 403),
        ({"host": "localhost", "origin": "null"}, 403),
    ],
)
def test_names_of_others_are_refused_on_loopback(
    client: httpx.Client, headers: dict[str, str], expected: int
) -> None:
    for path in ("/health", "/", "/metrics", "/nothing"):
        answer = client.get(path, headers=headers)
        if expected == 403:
            assert "--allowed-host" in refused(answer, 403)
        else:
            assert answer.status_code == (404 if path == "/nothing" else 200)


def test_more_names_can_be_allowed(serve: Serve) -> None:
    client, _ = serve("embedder", allowed_hosts=("Models.example", "[fd00::1]:80", "dot.example."))
    for host, expected in (
        ("models.EXAMPLE:99", 200),
        ("models.example.", 200),
        ("[fd00::1]", 200),
        ("dot.example:1", 200),
        ("localhost", 200),
        ("evil.example", 403),
    ):
        assert client.get("/health", headers={"host": host}).status_code == expected
    anyone, _ = serve("embedder", allowed_hosts=("*",))
    assert anyone.get("/health", headers={"host": "evil.example"}).status_code == 200


def test_nobody_is_sent_to_the_host_that_was_named(serve: Serve) -> None:
    client, _ = serve("embedder", allowed_hosts=("*",))
    for path in ("/health/", "/embed/", "/info/"):
        answer = client.get(path, headers={"host": "evil.example"})
        refused(answer, 404)
        assert "location" not in answer.headers
