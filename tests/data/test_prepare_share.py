"""Preparing in shares: whatever becomes of the tasks, the shards are those of one process."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data import byte_encoder
from tests.data.prepare_runner import SMALL, byte_tokenizer

from modernbert.data import documents, spill
from modernbert.data import prepare as prepare_module
from modernbert.data.corpus_files import CorpusFile
from modernbert.data.documents import FilePart, WorkUnit, share_of
from modernbert.data.prepare import ShareResult, prepare, prepare_share
from modernbert.data.settings import PrepareSettings
from modernbert.errors import InputError, RunError

RUNNER = Path(__file__).with_name("prepare_runner.py")
ROOT = Path(__file__).parents[2]
SETTINGS = PrepareSettings(held_out=0.1)


@pytest.fixture(autouse=True, scope="module")
def small_limits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "UNIT_BYTES", SMALL["unit_bytes"])
        patch.setattr(prepare_module, "RUN_TOKENS", SMALL["run_tokens"])
        patch.setattr(spill, "BUCKET_TOKENS", SMALL["bucket_tokens"])
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    choose = random.Random(0)
    for name in ("a", "b"):
        texts = ("".join(choose.choices("abcde ", k=choose.randint(1, 300))) for _ in range(80))
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    (folder / "c.txt").write_text("a text of its own")
    return folder


def arguments() -> dict[str, Any]:
    return {
        "tokenizer": byte_tokenizer(),
        "settings": SETTINGS,
        "workers": 1,
    }


def share(corpus: Path, output: Path, task: int, num_tasks: int, **more: Any) -> ShareResult:
    given = {**arguments(), **more}
    return prepare_share([corpus], output, task=task, num_tasks=num_tasks, **given)


def content(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def expected(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of the corpus."""
    output = tmp_path_factory.mktemp("expected") / "shards"
    prepare([corpus], output, **arguments())
    return content(output)


@pytest.mark.parametrize("num_tasks", [1, 3, 50])
def test_tasks_make_the_shards_of_one_process(
    corpus: Path, tmp_path: Path, expected: dict[str, bytes], num_tasks: int
) -> None:
    results = [share(corpus, tmp_path / "out", task, num_tasks) for task in range(num_tasks)][::-1]
    assert sum(result.num_documents for result in results) == 161
    assert prepare([corpus], tmp_path / "out", **arguments()).train.num_documents == 145
    assert content(tmp_path / "out") == expected


def test_tasks_at_the_same_time(corpus: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    with ThreadPoolExecutor(6) as threads:
        work = [threads.submit(share, corpus, tmp_path / "out", task, 6) for task in range(6)]
        documents = sum(each.result().num_documents for each in work)
    assert documents == 161
    prepare([corpus], tmp_path / "out", **arguments())
    assert content(tmp_path / "out") == expected


def test_a_missing_share_is_done_at_the_end(
    corpus: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    share(corpus, tmp_path / "out", 1, 3)
    prepare([corpus], tmp_path / "out", **arguments())
    assert content(tmp_path / "out") == expected


def test_a_share_is_not_tokenized_twice(corpus: Path, tmp_path: Path) -> None:
    first = share(corpus, tmp_path / "out", 0, 2)
    again = share(
        corpus, tmp_path / "out", 0, 2, tokenizer=byte_tokenizer(byte_encoder.make_broken_encode)
    )
    assert again == first
    prepare([corpus], tmp_path / "out", **arguments())
    assert share(corpus, tmp_path / "out", 0, 2).already_finished


@pytest.mark.parametrize("number", [2, 7, 12])
def test_a_killed_task_is_repeated(
    corpus: Path, tmp_path: Path, expected: dict[str, bytes], number: int
) -> None:
    options = {
        "inputs": [str(corpus)],
        "output": str(tmp_path / "out"),
        "settings": {"held_out": 0.1},
        "kill_at_sync": number,
        "share": [1, 2],
    }
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    killed = subprocess.run(
        [sys.executable, str(RUNNER), json.dumps(options)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    for task in (0, 1):
        share(corpus, tmp_path / "out", task, 2)
    prepare([corpus], tmp_path / "out", **arguments())
    assert content(tmp_path / "out") == expected


def test_shards_are_not_made_while_a_task_is_at_work(corpus: Path, tmp_path: Path) -> None:
    seen = []

    def meanwhile(_: object) -> None:
        for call in (
            lambda: prepare([corpus], tmp_path / "out", **arguments()),
            lambda: share(corpus, tmp_path / "out", 0, 2),
        ):
            with pytest.raises(RunError, match="another process is at work"):
                call()
            seen.append(call)

    share(corpus, tmp_path / "out", 0, 2, on_progress=meanwhile)
    assert seen


def test_a_task_of_other_settings_is_refused(corpus: Path, tmp_path: Path) -> None:
    share(corpus, tmp_path / "out", 0, 2)
    with pytest.raises(RunError, match="seed was 0, now 1"):
        share(corpus, tmp_path / "out", 1, 2, settings=PrepareSettings(held_out=0.1, seed=1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        share(corpus, tmp_path / "other", 1, 2)


@pytest.mark.parametrize(("task", "num_tasks"), [(2, 2), (-1, 2), (0, 0)])
def test_no_such_task(corpus: Path, tmp_path: Path, task: int, num_tasks: int) -> None:
    with pytest.raises(InputError, match="task: got"):
        share(corpus, tmp_path / "out", task, num_tasks)
    assert not (tmp_path / "out").exists()


@given(sizes=st.lists(st.integers(0, 1000), max_size=40), num_tasks=st.integers(1, 50))
def test_every_unit_is_in_one_share(sizes: list[int], num_tasks: int) -> None:
    files = [CorpusFile(path=str(n), input="x", num_bytes=n, mtime_ns=0) for n in sizes]
    units = [WorkUnit(index=i, parts=(FilePart(file=file),)) for i, file in enumerate(files)]
    shares = [share_of(units, task, num_tasks) for task in range(num_tasks)]
    assert sorted(u.index for each in shares for u in each) == list(range(len(units)))
    counts = [len(each) for each in shares]
    assert max(counts) - min(counts) <= 1
    loads = [sum(unit.num_bytes for unit in each) for each in shares]
    assert max(loads) - min(loads) <= max(sizes, default=0)
