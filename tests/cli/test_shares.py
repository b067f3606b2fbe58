"""Verbs whose work is shared among tasks, and continued: joined they give one process's output."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.conftest import TEXTS, Answer, Run
from tests.cli.test_inference_verbs import models as models

from modernbert.cli.job import LinesJob
from modernbert.cli.text_input import TextInput, files_of_share, rows_of_share
from modernbert.data.corpus_files import CorpusFile
from modernbert.data.settings import ShareSettings
from modernbert.errors import InputError, SettingsError

FLOAT32 = ("--precision", "float32")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """One file, which no task can take as a whole."""
    path = tmp_path / "texts.csv"
    path.write_text("id,text\n" + "".join(f'row{i},"{text}"\n' for i, text in enumerate(TEXTS)))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of several sizes and formats, without ids."""
    path = tmp_path / "texts"
    (path / "more").mkdir(parents=True)
    for number, name in enumerate(("a.txt", "b.jsonl", "more/c.txt", "more/d.txt")):
        own = TEXTS[number::4]
        lines = own if name.endswith("txt") else [json.dumps({"text": text}) for text in own]
        (path / name).write_text("\n".join(lines) + "\n")
    return path


def in_tasks(run: Run, *arguments: object, tasks: int = 3) -> Answer:
    for task in reversed(range(tasks)):
        answer = run(*arguments, "--task", task, "--tasks", tasks)
        assert answer.exit_code == 0, answer.stderr
        assert answer.stdout.startswith(f"task {task} of {tasks}: ")
    return run(*arguments, "--tasks", tasks)


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("source", ["table", "folder"])
def test_classify_in_tasks_gives_the_file_of_one(
    run: Run, models: Path, tmp_path: Path, source: str, request: pytest.FixtureRequest
) -> None:
    given = request.getfixturevalue(source)
    verb = "classify", models / "classifier", "--input", given, *FLOAT32, "--output"
    assert run(*verb, tmp_path / "one.jsonl").stdout.endswith("one.jsonl: 80 texts\n")
    assert in_tasks(run, *verb, tmp_path / "all.jsonl").exit_code == 0
    one, joined = lines_of(tmp_path / "one.jsonl"), lines_of(tmp_path / "all.jsonl")
    assert [(x["id"], x["text"]) for x in joined] == [(x["id"], x["text"]) for x in one]
    assert len({x["id"] for x in one}) == len(TEXTS)
    for ours, theirs in zip(joined, one, strict=True):
        assert [x["label"] for x in ours["labels"]] == [x["label"] for x in theirs["labels"]]
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        ["one.jsonl", "all.jsonl", given.name]
    )
    if source == "folder":
        assert {x["id"].rpartition(":")[0] for x in one} == {
            "a.txt",
            "b.jsonl",
            "more/c.txt",
            "more/d.txt",
        }
        assert one[0]["id"] == "a.txt:1"


def test_tags_and_sparse_vectors_in_tasks(
    run: Run, models: Path, tmp_path: Path, table: Path
) -> None:
    for verb in (
        ("tag", models / "tagger", "--input", table),
        ("embed", table, models / "sparse"),
    ):
        out = tmp_path / f"{verb[0]}.jsonl"
        assert in_tasks(run, *verb, *FLOAT32, "-o", out, tasks=2).exit_code == 0
        assert [x["id"] for x in lines_of(out)] == [f"row{i}" for i in range(len(TEXTS))]


def test_rerank_sorts_what_the_tasks_scored(
    run: Run, models: Path, tmp_path: Path, table: Path
) -> None:
    verb = "rerank", models / "reranker", "number 3", "--input", table, *FLOAT32
    expected = [json.loads(x) for x in run(*verb, "--top-k", 5, "--json").stdout.splitlines()]
    in_tasks(run, *verb, "--top-k", 5, "-o", tmp_path / "best.jsonl", tasks=2)
    found = lines_of(tmp_path / "best.jsonl")
    assert [x["score"] for x in found] == pytest.approx([x["score"] for x in expected], abs=1e-5)
    assert len(found) == 5


@pytest.mark.parametrize("name", ["out.npy", "out.parquet", "out.index"])
def test_embed_in_tasks_gives_the_vectors_of_one(
    run: Run, models: Path, tmp_path: Path, table: Path, name: str
) -> None:
    verb = "embed", table, models / "embedder", *FLOAT32, "-o"
    assert run(*verb, tmp_path / "one.npy").exit_code == 0
    answer = in_tasks(run, *verb, tmp_path / name, tasks=4)
    assert answer.exit_code == 0, answer.stderr
    assert "80 vectors" in answer.stdout
    expected = np.load(tmp_path / "one.npy")
    if name == "out.npy":
        ids = (tmp_path / "one.ids.jsonl").read_bytes()
        assert (tmp_path / "out.ids.jsonl").read_bytes() == ids
        np.testing.assert_allclose(np.load(tmp_path / name), expected, atol=1e-5)
    if name == "out.index":
        hits = run("search", tmp_path / name, models / "embedder", TEXTS[7], "--json").json["hits"]
        assert hits[0]["text"] == TEXTS[7]


def test_an_index_of_token_vectors_in_tasks(
    run: Run, models: Path, tmp_path: Path, folder: Path
) -> None:
    verb = "embed", folder, models / "multi", *FLOAT32, "-o", tmp_path / "out.index"
    assert in_tasks(run, *verb, tasks=2).exit_code == 0
    found = run("search", tmp_path / "out.index", models / "multi", TEXTS[5], "--json").json
    assert found["hits"][0]["text"] == TEXTS[5]


def test_a_stopped_task_goes_on(tmp_path: Path, table: Path) -> None:
    reader = TextInput(table, share=ShareSettings(task=1, tasks=2))
    assert [row.id for row in reader] == [f"row{i}" for i in range(40, 80)]
    job = LinesJob(tmp_path / "o.jsonl", {"a": 1}, share=reader.share)
    with job:
        job.add([b'"x"\n'])
        job.save()
    with LinesJob(tmp_path / "o.jsonl", {"a": 1}, share=reader.share) as again:
        assert again.num_done == 1
    with pytest.raises(InputError, match="belongs to a job with another a"):
        LinesJob(tmp_path / "o.jsonl", {"a": 2}, share=reader.share)


def test_shares_are_checked_before_they_are_joined(
    run: Run, models: Path, tmp_path: Path, table: Path
) -> None:
    out = tmp_path / "out.jsonl"
    verb = "classify", models / "classifier", "--input", table, "-o", out
    assert "task 0 of 2 has not begun" in run(*verb, "--tasks", 2).stderr
    for task in (0, 1):
        assert run(*verb, "--task", task, "--tasks", 2).exit_code == 0
    shutil.rmtree(tmp_path / "out.jsonl.unfinished", ignore_errors=True)
    kept = tmp_path / "out.jsonl.tasks" / "1-of-2" / "lines.jsonl"
    content = kept.read_bytes()
    kept.write_bytes(content.replace(b"row41", b"row42"))
    assert "was changed since it was written" in run(*verb, "--tasks", 2).stderr
    kept.write_bytes(content)
    other = run(*verb, "--top-k", 1, "--tasks", 2)
    assert "belongs to a job with another top k" in other.stderr
    assert not out.exists()
    shutil.rmtree(tmp_path / "out.jsonl.unfinished")
    assert run(*verb, "--tasks", 2).exit_code == 0
    assert len(lines_of(out)) == len(TEXTS)
    assert "already exists" in run(*verb, "--task", 0, "--tasks", 2).stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", 1], "--task: got 1 of unknown tasks"),
        (["--task", 2, "--tasks", 2], "--task: got 2 of 2 tasks"),
        (["--tasks", 2], "--tasks: needs --output"),
    ],
)
def test_shares_that_make_no_sense(
    run: Run, models: Path, table: Path, options: list[object], message: str
) -> None:
    answer = run("classify", models / "classifier", "--input", table, *options)
    assert (answer.exit_code, message in answer.stderr) == (2, True), answer.stderr
    with pytest.raises(SettingsError):
        ShareSettings(task=3, tasks=3)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An object storage within this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def test_from_object_storage_and_into_it(
    run: Run, models: Path, tmp_path: Path, folder: Path, storage: Any
) -> None:
    storage.put(str(folder), "bucket/texts", recursive=True)
    verb = "embed", "memory://bucket/texts", models / "embedder", *FLOAT32
    answer = in_tasks(run, *verb, "-o", "memory://bucket/out/vectors.npy", tasks=2)
    assert answer.exit_code == 0, answer.stderr
    assert sorted(each.rpartition("/")[2] for each in storage.find("bucket/out")) == [
        "vectors.ids.jsonl",
        "vectors.npy",
        "vectors.npy.hashes.json",
    ]
    assert run("embed", folder, *verb[2:], "-o", tmp_path / "one.npy").exit_code == 0
    storage.get("bucket/out/vectors.npy", str(tmp_path / "got.npy"))
    storage.get("bucket/out/vectors.ids.jsonl", str(tmp_path / "got.jsonl"))
    np.testing.assert_allclose(
        np.load(tmp_path / "got.npy"), np.load(tmp_path / "one.npy"), atol=1e-5
    )
    assert (tmp_path / "got.jsonl").read_bytes() == (tmp_path / "one.ids.jsonl").read_bytes()
    again = run(*verb, "-o", "memory://bucket/out/vectors.npy")
    assert "memory://bucket/out/vectors.npy: already exists" in again.stderr
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_results_into_object_storage(run: Run, models: Path, table: Path, storage: Any) -> None:
    verb = "classify", models / "classifier", "--input", table.as_uri(), "-o"
    assert run(*verb, "memory://bucket/labels.jsonl").exit_code == 0
    assert len(storage.cat("bucket/labels.jsonl").splitlines()) == len(TEXTS)
    assert "has no file" in run("classify", models / "classifier", "-i", "memory://no").stderr


@given(sizes=st.lists(st.integers(0, 1000), min_size=1, max_size=40), tasks=st.integers(1, 9))
def test_every_file_is_in_one_share(sizes: list[int], tasks: int) -> None:
    files = [CorpusFile(path=str(n), input="x", num_bytes=n, mtime_ns=0) for n in sizes]
    shares = [files_of_share(files, task, tasks) for task in range(tasks)]
    assert len({share is None for share in shares}) == 1
    if shares[0] is not None:
        assert [file for share in shares for file in share or ()] == files
        loads = [sum(max(1, file.num_bytes) for file in share or ()) for share in shares]
        assert max(loads) * tasks <= 2 * sum(loads)


@given(rows=st.integers(0, 200), tasks=st.integers(1, 20))
def test_every_row_is_in_one_share(rows: int, tasks: int) -> None:
    ranges = [rows_of_share(rows, task, tasks) for task in range(tasks)]
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(rows))
    assert max(stop - start for start, stop in ranges) <= rows // tasks + 1
