"""Servers as processes of their own: ours, sentence-transformers', infinity's."""

import os
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import monotonic, sleep

_START_SECONDS = 300
_STOP_SECONDS = 60


def ours(
    model: Path, *, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> AbstractContextManager[str]:
    """`modernbert serve`; gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "modernbert", "serve", str(model), f"--port={port}", *options]
    return running(command, f"http://127.0.0.1:{port}", "/health", environment)


def sentence_transformers(
    embedder: Path, reranker: Path, python: str, *, dtype: str
) -> AbstractContextManager[str]:
    """The server of `peer.py`, in an environment with FastAPI."""
    port, script = free_port(), Path(__file__).with_name("peer.py")
    command = [python, str(script), str(embedder), str(reranker), str(port), dtype]
    return running(command, f"http://127.0.0.1:{port}", "/health", {"PYTHONPATH": ""})


def infinity(model: Path, program: Path) -> AbstractContextManager[str]:
    """infinity-emb of an environment of its own, whose `infinity_emb` is the program."""
    port = free_port()
    command = [str(program), "v2", "--model-id", str(model), f"--port={port}", "--device=cpu"]
    command += ["--engine=torch", "--dtype=float32", "--host=127.0.0.1", "--no-bettertransformer"]
    return running(command, f"http://127.0.0.1:{port}", "/health")


@contextmanager
def running(
    command: Sequence[str],
    address: str,
    ready_path: str,
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """A server from when it answers until it is asked to leave."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **(environment or {})}
        )
        try:
            _wait_until_ready(process, address + ready_path)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.seek(0)
            if process.returncode not in (0, -15, 143):
                said = log.read()[-2000:].decode(errors="replace")
                raise RuntimeError(f"{command[0]} left with {process.returncode}: {said}")


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = monotonic() + _START_SECONDS
    while process.poll() is None and monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            sleep(0.1)
    raise RuntimeError(f"{url}: no answer")
