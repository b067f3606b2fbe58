"""Servers that load a model, compute with it, and fork their workers then."""

import subprocess
import sys

import pytest

PREFORKING_SERVER = """
import os, socket, sys
import torch
from modernbert import Encoder, EncoderConfig, PackedBatch

torch.set_num_threads(2)
encoder = Encoder(EncoderConfig.preset("tiny", vocab_size=512))
if sys.argv[1] == "packed":
    encoder.for_inference("float32")
batch = PackedBatch.from_sequences([list(range(5, 400)), list(range(5, 300))])
with torch.no_grad():
    expected = encoder(batch)  # the parent has threads from here on

listener = socket.create_server(("127.0.0.1", 0))
workers = []
for _ in range(2):
    if (pid := os.fork()) == 0:
        connection, _ = listener.accept()
        with connection, torch.no_grad():
            same = torch.allclose(encoder(batch), expected, atol=1e-4)
            connection.sendall(b"same" if same else b"other")
        os._exit(0)
    workers.append(pid)
for _ in workers:
    with socket.create_connection(listener.getsockname(), timeout=60) as client:
        client.settimeout(60)
        print(client.recv(16).decode())
for pid in workers:
    os.waitpid(pid, 0)
print(torch.get_num_threads())
"""


@pytest.mark.parametrize("way", ["packed", "torch"])
def test_workers_that_are_forked_after_a_computation_answer(way: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", PREFORKING_SERVER, way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["same", "same", "2"]
