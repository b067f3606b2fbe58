"""Servers as processes: twice the load, SIGTERM, kill and restart."""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import httpx
import pytest
from tests.cli.conftest import Run
from tests.cli.conftest import run as run
from tests.reliability.soak import metrics, soak
from tests.serving.conftest import text_of

from benchmarks.serving.load import Answer, Ask, Connection, closed_loop, embed_ask
from benchmarks.serving.servers import free_port, ours, running
from modernbert.cli.serve import _log_visibly

SOAK_SECONDS = float(os.environ.get("MODERNBERT_SOAK_SECONDS", "30"))
ADMITTED = 4
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
MEBIBYTE = 1 << 20


def test_twice_the_load(folders: dict[str, Path]) -> None:
    """Each request is answered once, refusals come early, and the memory is flat."""
    texts = [text_of(length, length) for length in (1, 4, 12, 40, 90)]
    options = (f"--max-concurrent-requests={ADMITTED}", "--precision=float32")
    with ours(folders["embedder"], options=options, environment=ONE_THREAD) as address:
        outcome = soak(address, texts, seconds=SOAK_SECONDS, num_clients=2 * ADMITTED)
        counted = metrics(address)
    assert outcome.wrong == []
    assert set(outcome.statuses) == {200, 429}
    assert counted['te_request_success{route="/embed"}'] == outcome.statuses[200] + len(texts)
    assert counted['te_request_failure{err="Overloaded"}'] == outcome.statuses[429]
    assert counted["te_request_running"] == counted["te_queue_size"] == 0
    if SOAK_SECONDS >= 20:  # before that it still fills its pools
        assert outcome.growth_bytes < 24 * MEBIBYTE


@pytest.fixture
def process(folders: dict[str, Path]) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`modernbert serve` of an embedder, and its address."""
    with _serving(folders["embedder"]) as found:
        yield found


@contextmanager
def _serving(model: Path, *options: str) -> Iterator[tuple[Any, str]]:
    port = free_port()
    command = [sys.executable, "-m", "modernbert", "serve", str(model)]
    process = subprocess.Popen(
        [*command, f"--port={port}", *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ONE_THREAD},
    )
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert any(line.startswith("serving on http://127.0.0.1:") for line in lines)
    yield process, f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()
    process.stderr.close()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_requests_finish(process: Any, sent: signal.Signals) -> None:
    server, address = process
    url = httpx.URL(address)
    body = b'{"inputs": "12"}'
    with socket.create_connection((url.host, url.port)) as slow, httpx.Client() as watcher:
        slow.sendall(
            b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            + f"content-length: {len(body)}\r\n\r\n".encode()
            + body[:5]
        )
        while metrics(address)["te_request_running"] < 1:
            sleep(0.01)
        assert watcher.get(f"{address}/health").status_code == 200
        server.send_signal(sent)
        while watcher.get(f"{address}/health").status_code == 200:
            sleep(0.01)
        late = watcher.post(f"{address}/embed", json={"inputs": "12"})
        assert late.status_code == 503 and "retry-after" in late.headers
        assert server.poll() is None
        slow.sendall(body[5:])
        assert slow.recv(20).startswith(b"HTTP/1.1 200")
    assert server.wait(20) == 0
    assert "Traceback" not in server.stderr.read()


def test_what_is_not_finished_by_the_deadline_is_cut_off(folders: dict[str, Path]) -> None:
    with _serving(folders["embedder"], "--shutdown-timeout=1") as (server, address):
        url = httpx.URL(address)
        with (
            socket.create_connection((url.host, url.port)) as slow,
            socket.create_connection((url.host, url.port)) as idle,
        ):
            slow.sendall(
                b"POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                b"content-length: 9\r\n\r\n{"
            )
            while metrics(address)["te_request_running"] < 1:
                sleep(0.01)
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0
            assert idle.recv(10) == b""
        said = server.stderr.read()
        assert "1 request did not finish" in said and "Traceback" not in said


def test_killed_under_load_and_started_again(folders: dict[str, Path]) -> None:
    """Clients lose what was under way, and nothing else is wrong before or after."""
    port = free_port()
    command = [sys.executable, "-m", "modernbert", "serve", str(folders["embedder"])]
    command.append(f"--port={port}")
    address, ask = f"http://127.0.0.1:{port}", embed_ask(text_of(9), 0)
    answers: list[Answer] = []
    environment = {**os.environ, **ONE_THREAD}
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    try:
        _until_answered(address, ask)
        load = Thread(
            target=closed_loop,
            args=(address, [ask]),
            kwargs={"num_clients": 3, "seconds": 1.0, "on_answer": answers.append},
        )
        load.start()
        sleep(0.4)
    finally:
        first.kill()
        first.wait()
    load.join()
    assert {answer.status for answer in answers} == {0, 200}
    with running(command, address, "/health", ONE_THREAD):
        again = _sent(address, ask)
    served = {answer.content for answer in answers if answer.status == 200}
    assert {again.status, *served} == {200, again.content}


def _until_answered(address: str, ask: Ask) -> None:
    deadline = monotonic() + 60
    while _sent(address, ask).status != 200:
        assert monotonic() < deadline
        sleep(0.05)


def _sent(address: str, ask: Ask) -> Answer:
    with Connection(address) as connection:
        return connection.send(ask)


def test_mistakes_on_the_command_line(
    run: Run, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = run("serve", tmp_path / "none", "--port", 0)
    assert missing.exit_code == 2 and "none" in missing.stderr
    twice = run("serve", folders["embedder"], folders["embedder"], "--port", 0)
    assert twice.exit_code == 2 and "2 are named 'embedder'; write NAME=MODEL" in twice.stderr
    empty = run("serve", folders["embedder"], "--api-key", "", "--port", 0)
    assert empty.exit_code == 2 and "--api-key: got" in empty.stderr
    monkeypatch.setenv("MODERNBERT_API_KEY", "\udcff\udcfe")
    undecodable = run("serve", folders["embedder"], "--port", 0)
    assert undecodable.exit_code == 2 and "UTF-8" in undecodable.stderr
    monkeypatch.delenv("MODERNBERT_API_KEY")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = run("serve", folders["embedder"], "--port", port)
    assert busy.exit_code == 2 and f"127.0.0.1:{port}" in busy.stderr


def test_the_log_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    kept, root.handlers = root.handlers, []
    try:
        _log_visibly()
        try:
            raise KeyError("\x1b[2J")
        except KeyError as error:
            root.error("a text: %s", "\x1b]0;title\x07", exc_info=error)
    finally:
        root.handlers = kept
    said = capsys.readouterr().err
    assert "\\x1b]0;title" in said and "\x1b" not in said and "Traceback" in said
