"""Clients that are slow, gone, wrong or hostile."""

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event
from time import monotonic, sleep
from typing import Any

import httpx
import pytest
from tests.serving.conftest import Serve, connect, text_of

from modernbert.batch import PackedBatch
from modernbert.inference.embedder import Embedder
from modernbert.serving.models import ServedModel
from modernbert.serving.queue import Lane
from modernbert.serving.service import Service

JSON = {"content-type": "application/json"}
SECONDS = 20


def refused(answer: httpx.Response, status: int) -> str:
    """The message of a refusal, which is always JSON and never tells of the code."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) in ({"error", "error_type"}, {"message", "code", "type"})
    assert "Traceback" not in answer.text and ".py" not in answer.text
    return str(body.get("error") or body["message"])


def until(condition: Callable[[], Any]) -> None:
    deadline = monotonic() + SECONDS
    while not condition():
        assert monotonic() < deadline, "it never came to be"
        sleep(0.01)


class Blocked:
    """Keeps the engine busy until it is let go."""

    def __init__(self, model: ServedModel) -> None:
        self.began, self.go = Event(), Event()
        self.computed: list[int] = []
        self._vectors = model.part(Embedder).compute
        model._lanes[("pooled", 0)] = Lane(model.encoder, self)

    def __call__(self, batch: PackedBatch) -> Any:
        self.began.set()
        assert self.go.wait(SECONDS)
        self.computed.append(batch.num_sequences)
        return self._vectors(batch)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b'{"inputs": "\xff"}', "body"),
        (b'{"inputs": "\\ud800"}', "body"),
        (b'{"inputs": "a\x00"}', "body"),
        (b"[" * 5_000, "body"),
        (b'{"inputs": ' + b"[" * 5_000, "inputs[0][0]"),
        (b'{"inputs": ' + b'{"a":' * 5_000, "inputs"),
        (b'{"other": ' + b"[" * 5_000, "other"),
        (b"null", "body"),
        (b"{}", "inputs"),
        (b'{"inputs": null}', "inputs"),
        (b'{"inputs": 1e400}', "inputs"),
        (b'{"inputs": []}', "inputs"),
        (b'{"inputs": [[]]}', "inputs[0]"),
        (b'{"inputs": ["a", 1]}', "inputs"),
        (b'{"inputs": ["a", {}]}', "inputs[1]"),
        (b'{"inputs": [[-1]]}', "inputs[0][0]"),
        (b'{"inputs": [1' + b"0" * 5000 + b"]}", "inputs[0]"),
        (b'{"inputs": "a", "dimensions": 99999999999999999999999999}', "dimensions"),
        (b'{"inputs": "a", "dimensions": 1.5}', "dimensions"),
        (b'{"inputs": "a", "truncate": "yes"}', "truncate"),
        (b'{"inputs": "a", "truncation_direction": "up"}', "truncation_direction"),
        (b'{"inputs": "a", "prompt_name": "none such"}', "prompt_name"),
    ],
)
def test_the_field_that_cannot_be_is_named(client: httpx.Client, body: bytes, named: str) -> None:
    said = refused(client.post("/embed", content=body, headers=JSON), 400)
    assert said.startswith(f"{named}:")


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/predict", {"inputs": ["a", "b", "c"]}, "inputs"),
        ("/predict", {"inputs": [["a", "b", "c"]]}, "inputs[0]"),
        ("/predict", {"inputs": [[]]}, "inputs[0]"),
        ("/predict", {"inputs": []}, "inputs"),
        ("/rerank", {"query": "a", "texts": []}, "texts"),
        ("/rerank", {"texts": ["a"]}, "query"),
        ("/similarity", {"inputs": {"source_sentence": "a"}}, "inputs.sentences"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, "inputs.sentences"),
        ("/tag", {"inputs": [], "truncation_direction": "Right"}, "inputs"),
        ("/fill-mask", {"inputs": []}, "inputs"),
        ("/fill-mask", {"inputs": "[MASK]", "parameters": {"targets": ["a"]}}, "parameters"),
        ("/tokenize", {"inputs": []}, "inputs"),
        ("/decode", {"ids": []}, "ids"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_what_other_routes_refuse(client: httpx.Client, path: str, body: Any, named: str) -> None:
    assert refused(client.post(path, json=body), 400).startswith(named)


def test_paths_methods_and_types(client: httpx.Client) -> None:
    refused(client.post("/none", json={}), 404)
    assert "POST" in client.get("/embed").headers["allow"]
    refused(client.get("/embed"), 405)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx"):
        answer = client.post("/embed", content=b'{"inputs": "a"}', headers={"content-type": kind})
        assert "application/json" in refused(answer, 415)
    answer = client.post(
        "/embed", content=b'{"inputs": "a"}', headers={"content-type": "Application/JSON; x=y"}
    )
    assert answer.status_code == 200
    refused(client.request("POST", "/embed", content=b'{"inputs": "a"}'), 415)


def test_bodies_are_cut_off_where_they_are_too_large(serve: Serve) -> None:
    client, _ = serve("embedder", max_body_bytes=1000)
    large = json.dumps({"inputs": "a" * 2000}).encode()
    refused(client.post("/embed", content=large, headers=JSON), 413)
    pieces = (large[at : at + 100] for at in range(0, len(large), 100))  # no length declared
    refused(client.post("/embed", content=pieces, headers=JSON), 413)
    assert client.post("/embed", json={"inputs": "a"}).status_code == 200
    with connect(client) as stranger:  # more than is declared to come never comes
        stranger.sendall(
            b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        )
        stranger.sendall(b"content-length: 99999999999999999999\r\n\r\n{")
        assert b" 4" in stranger.recv(100)[:13]


def test_ten_megabytes_of_one_word(client: httpx.Client, serve: Serve) -> None:
    word = "a" * 10_000_000
    assert "2,000,000 bytes" in refused(client.post("/embed", json={"inputs": word}), 413)
    body = {"inputs": word[:300_000]}
    assert "truncate" in refused(client.post("/embed", json=body), 413)
    answer = client.post("/embed", json={**body, "truncate": True})
    assert answer.status_code == 200
    large, _ = serve("embedder", max_body_bytes=20_000_000, timeout_seconds=0.02)
    refused(large.post("/embed", json={"inputs": word[:1_000_000]}), 503)
    assert large.get("/health").status_code == 200


def test_slow_and_half_sent_bodies(serve: Serve) -> None:
    client, service = serve("embedder", body_seconds=0.3)
    head = b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with connect(client) as slow, connect(client) as gone:
        slow.sendall(head + b'content-length: 15\r\n\r\n{"inp')
        gone.sendall(head + b'content-length: 15\r\n\r\n{"inp')
        gone.close()
        assert client.post("/embed", json={"inputs": "a"}).status_code == 200
        assert slow.recv(20).startswith(b"HTTP/1.1 408")
    until(lambda: service.num_running == 0)
    with connect(client) as patient:
        patient.sendall(head + b"content-length: 15\r\n\r\n")
        for piece in (b'{"inpu', b'ts": "a', b'"}'):
            sleep(0.02)
            patient.sendall(piece)
        assert patient.recv(20).startswith(b"HTTP/1.1 200")


def test_a_request_of_two_lengths_is_the_last_of_its_connection(client: httpx.Client) -> None:
    """A proxy that goes by the other length would take what follows for another request."""
    head = b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    chunked = head + b"transfer-encoding: chunked\r\n%b\r\nf\r\n" + b'{"inputs": "a"}\r\n0\r\n\r\n'
    more = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    for lengths, answers in ((b"content-length: 15\r\n", 1), (b"", 2)):
        with connect(client) as stranger:
            stranger.sendall(chunked % lengths + more)
            received = b""
            while piece := stranger.recv(1 << 16):
                received += piece
        assert received.count(b"HTTP/1.1 200") == answers


def test_packed_bodies_are_refused(client: httpx.Client) -> None:
    packed = gzip.compress(b'{"inputs": "' + b"a" * 1_000_000 + b'"}')
    for coding in ("gzip", "br", "GZIP, identity"):
        headers = {"content-encoding": coding, "content-type": "application/json"}
        answer = client.post("/embed", content=packed, headers=headers)
        assert "content-encoding: got" in refused(answer, 415)


def test_what_is_no_http(client: httpx.Client) -> None:
    for noise in (b"\x00\x01\x02\r\n\r\n", b"GET /" + b"a" * 100_000, b"POST / HTTP/9\r\n\r\n"):
        with connect(client) as stranger:
            answer = b""
            with suppress(OSError):  # closed before all of it had arrived
                stranger.sendall(noise)
                stranger.shutdown(socket.SHUT_WR)
                answer = stranger.recv(20)
            assert answer in (b"", b"HTTP/1.1 400 Bad Req")
    assert client.get("/health").status_code == 200


def test_the_key(serve: Serve) -> None:
    client, _ = serve("embedder", api_key="sésame")
    ask: Callable[..., httpx.Response] = lambda **headers: client.post(  # noqa: E731
        "/embed", json={"inputs": "a"}, headers=headers
    )
    for wrong in ("", "Bearer", "Bearer sesame", "Basic sésame", "sésame", "Bearer sésame2"):
        answer = ask(authorization=wrong.encode())
        refused(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    right = {"authorization": "Bearer sésame".encode()}
    assert ask(**right).status_code == 200
    for path in ("/info", "/metrics", "/v1/models", "/embedder/info"):
        refused(client.get(path), 401)
        assert client.get(path, headers=right).status_code == 200
    for path in ("/", "/health", "/openapi.json"):
        assert client.get(path).status_code == 200


@pytest.fixture
def blocked(serve: Serve, models: list[ServedModel]) -> Iterator[Any]:
    """A server whose engine computes nothing before it is told to."""
    lanes = models[0]._lanes
    kept = dict(lanes)
    lanes.clear()

    def start(**settings: Any) -> tuple[httpx.Client, Service, Blocked]:
        client, service = serve("embedder", **settings)
        return client, service, Blocked(models[0])

    yield start
    lanes.clear()
    lanes.update(kept)


def send(client: httpx.Client, text: str) -> socket.socket:
    """A request whose answer is not waited for."""
    body = json.dumps({"inputs": text}).encode()
    connection = connect(client)
    connection.sendall(
        b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        + f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return connection


def status(connection: socket.socket) -> int:
    with connection:
        return int(connection.recv(100).split()[1])


def test_a_client_that_goes_away_frees_its_place(blocked: Any) -> None:
    client, service, block = blocked()
    first = send(client, "a")
    assert block.began.wait(SECONDS)
    leaving = [send(client, text_of(5)) for _ in range(4)]
    staying = send(client, "b")
    until(lambda: len(service.engine.queue) == 5)
    for connection in leaving:
        connection.close()
    until(lambda: len(service.engine.queue) == 1)
    until(lambda: service.num_running == 2)
    block.go.set()
    assert [status(first), status(staying)] == [200, 200]
    assert block.computed == [1, 1]
    assert 'te_request_failure{err="disconnected"} 4.0' in client.get("/metrics").text


def test_more_than_the_queue_and_the_server_take(blocked: Any) -> None:
    client, service, block = blocked(max_queue_tokens=60, max_concurrent_requests=4)
    first = send(client, "a")
    assert block.began.wait(SECONDS)
    waiting = [send(client, text_of(12))]
    until(lambda: len(service.engine.queue) == 1)
    answer = client.post("/embed", json={"inputs": [text_of(20), text_of(20)]})
    assert "queue" in refused(answer, 429)
    assert int(answer.headers["retry-after"]) >= 1
    waiting += [send(client, "b"), send(client, "c")]
    until(lambda: service.num_running == 4)
    answer = client.post("/embed", json={"inputs": "d"})
    assert "4 requests" in refused(answer, 429)
    assert int(answer.headers["retry-after"]) >= 1
    assert client.get("/health").status_code == 200
    block.go.set()
    assert [status(each) for each in [first, *waiting]] == [200] * 4


def test_a_request_that_takes_too_long_is_given_up(blocked: Any) -> None:
    client, service, block = blocked(timeout_seconds=0.2)
    first = send(client, "a")
    assert block.began.wait(SECONDS)
    answer = client.post("/embed", json={"inputs": "b"})
    assert "0.2 seconds" in refused(answer, 503)
    assert int(answer.headers["retry-after"]) >= 1
    assert len(service.engine.queue) == 0
    assert status(first) == 503
    block.go.set()
    until(lambda: client.post("/embed", json={"inputs": "c"}).status_code == 200)


def test_others_come_between_the_parts_of_a_large_request(blocked: Any) -> None:
    client, _, block = blocked(batch_tokens=60)
    large = connect(client)
    body = json.dumps({"inputs": [text_of(4)] * 60}).encode()
    large.sendall(
        b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        + f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    assert block.began.wait(SECONDS)
    small = send(client, "a")
    until(lambda: client.get("/metrics").text.count('te_request_count{route="/embed"} 2.0'))
    order: list[str] = []
    block.go.set()
    assert status(small) == 200
    order.append("small")
    assert status(large) == 200
    assert sum(block.computed) == 61 and len(block.computed) > 6


def test_brackets_count_outside_of_texts_alone(client: httpx.Client) -> None:
    text = '[{"' * 20_000 + "\\"
    body = {"inputs": text, "truncate": True}
    assert client.post("/embed", json=body).status_code == 200
    lists = b'{"inputs": [' + b",".join([b"[1]"] * 20_000) + b"]}"
    assert "20,001" not in refused(client.post("/embed", content=lists, headers=JSON), 413)
    assert refused(client.post("/embed", content=lists, headers=JSON), 413).startswith("body:")
    assert "2049" in refused(client.post("/embed", json={"inputs": [[1]] * 2049}), 413)
    assert "300,000" in refused(client.post("/embed", json={"inputs": [1] * 300_001}), 413)


def test_messages_do_not_send_a_body_back(client: httpx.Client) -> None:
    for body in ({"model": "m" * 500_000}, {"prompt_name": "p" * 500_000}):
        answer = client.post("/embed", json={"inputs": "a", **body})
        assert answer.status_code in (400, 404) and len(answer.content) < 2000


def test_the_answers_of_tokenize_are_limited(serve: Serve) -> None:
    client, _ = serve("embedder", max_request_tokens=50)
    assert len(client.post("/tokenize", json={"inputs": ["12"] * 10}).json()) == 10
    for inputs in (["12"] * 40, text_of(60), [text_of(20), text_of(40)]):
        assert "50 tokens" in refused(client.post("/tokenize", json={"inputs": inputs}), 413)


def test_a_fault_of_the_server_tells_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = serve("embedder")

    def broken(*_: Any) -> Any:
        raise KeyError("a secret")

    monkeypatch.setattr("modernbert.serving.routes.encode_ids_too", broken)
    assert "secret" not in refused(client.post("/embed", json={"inputs": "a"}), 500)
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("kind", "path", "inputs"),
    [
        ("answerer", "/answer", {"question": "a?", "context": "b " * 500}),
        ("tagger", "/tag", [["b"] * 500, "b " * 500]),
    ],
)
def test_tokens_with_spans_are_counted_before_they_are_made(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, kind: str, path: str, inputs: Any
) -> None:
    def spans(*_: Any, **__: Any) -> Any:
        raise AssertionError("made")

    monkeypatch.setattr("modernbert.tokenizer.tokenizer.Tokenizer.encode_with_offsets", spans)
    monkeypatch.setattr("modernbert.tokenizer.tokenizer.Tokenizer.encode_words", spans)
    client, _ = serve(kind, max_request_tokens=100)
    assert "more than 100 tokens" in refused(client.post(path, json={"inputs": inputs}), 413)
