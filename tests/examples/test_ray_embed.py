"""The example on Ray Data, on a real local cluster of two workers, one of which is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import tokenizer_folder as tokenizer_folder
from tests.cli.test_inference_verbs import models as models

from modernbert import Embedder

ray = pytest.importorskip("ray")
parquet = pytest.importorskip("pyarrow.parquet")
pyarrow = pytest.importorskip("pyarrow")

SCRIPT = Path(__file__).parents[2] / "examples" / "ray_embed.py"
NUM_TEXTS = 600
NUM_ROWS = 25

# Runs the example in a process of its own, with a small cluster that ends with it. Workers write
# their ids, so that the test can kill one of them between two batches.
PROGRAM = """
import importlib.util, os, sys, time, warnings
warnings.simplefilter("ignore")
import ray
script, pids, folder, *arguments = sys.argv[1:]
ray.init(num_cpus=2, object_store_memory=100_000_000, include_dashboard=False,
         log_to_driver=False, _temp_dir=folder)
ray.data.DataContext.get_current().enable_progress_bars = False
spec = importlib.util.spec_from_file_location("ray_embed", script)
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)

class Embed(example.Embed):
    def __call__(self, batch):
        open(os.path.join(pids, str(os.getpid())), "a").write("batch ")
        time.sleep(0.1)
        return super().__call__(batch)

Embed.__module__ = "__main__"
example.Embed = Embed
example.main(arguments)
ray.shutdown()
"""


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(models: Path, tmp_path: Path) -> None:
    texts = [f"the square of {number} is not less" for number in range(NUM_TEXTS)]
    table = pyarrow.table({"id": range(NUM_TEXTS), "text": texts})
    parquet.write_table(table, tmp_path / "texts.parquet")
    pids, output = tmp_path / "pids", tmp_path / "vectors"
    pids.mkdir()
    arguments = [SCRIPT, pids, short_folder(tmp_path), tmp_path / "texts.parquet"]
    arguments += [models / "embedder", output, "--batch-size", NUM_ROWS]
    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    killed = kill_one(pids, process)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    found = parquet.read_table(output).to_pydict()
    assert sorted(found["id"]) == list(range(NUM_TEXTS))
    assert killed is not None and len(list(pids.iterdir())) > 2  # another one came in its place
    expected = Embedder.from_pretrained(models / "embedder").encode(texts)
    vectors = np.array(found["vector"], np.float32)[np.argsort(found["id"])]
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def short_folder(tmp_path: Path) -> Path:
    """Ray's sockets are in it, whose paths may have about a hundred letters."""
    folder = Path("/tmp") / f"ray-{os.getpid()}"
    return folder if len(str(tmp_path)) > 40 else tmp_path / "ray"


def kill_one(pids: Path, process: subprocess.Popen[str]) -> int | None:
    """Kill a worker after its third batch."""
    until = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < until:
        for worker in pids.iterdir():
            if worker.read_text().count("batch") >= 3:
                os.kill(int(worker.name), signal.SIGKILL)
                return int(worker.name)
        time.sleep(0.02)
    return None


def test_the_example_is_short() -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 60
