"""Preparing a corpus: every document once, the same bytes however it was interrupted."""

import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data import byte_encoder
from tests.data.prepare_runner import SMALL, byte_tokenizer

from modernbert.data import documents, spill
from modernbert.data import prepare as prepare_module
from modernbert.data.prepare import PrepareResult, prepare
from modernbert.data.records import Document
from modernbert.data.settings import PrepareSettings
from modernbert.data.shards import ShardFolder
from modernbert.data.spill import document_keys
from modernbert.data.tokenizing import PrepareProgress, _pieces, cut_before_space
from modernbert.errors import DocumentError, InputError, RunError, SettingsError
from modernbert.files import TEMPORARY_PREFIX

RUNNER = Path(__file__).with_name("prepare_runner.py")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "UNIT_BYTES", SMALL["unit_bytes"])
    monkeypatch.setattr(prepare_module, "RUN_TOKENS", SMALL["run_tokens"])
    monkeypatch.setattr(spill, "BUCKET_TOKENS", SMALL["bucket_tokens"])


def run(
    inputs: Sequence[Path],
    output: Path,
    *,
    factory: Callable[[], Any] = byte_encoder.make_encode,
    fingerprint: str = "bytes",
    workers: int | None = 1,
    on_progress: Callable[[PrepareProgress], None] | None = None,
    **options: Any,
) -> PrepareResult:
    return prepare(
        inputs,
        output,
        byte_tokenizer(factory, fingerprint),
        settings=PrepareSettings(**options),
        workers=workers,
        on_progress=on_progress,
    )


def run_process(**options: Any) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
    }
    return subprocess.run(
        [sys.executable, str(RUNNER), json.dumps(options, default=str)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def texts_of(folder: ShardFolder | None) -> list[str]:
    assert folder is not None
    return [
        shard.tokens[begin:end].astype(np.uint8).tobytes().decode()
        for shard in folder.shards
        for begin, end in zip(shard.offsets[:-1], shard.offsets[1:], strict=True)
    ]


def content_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def write_lines(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> list[Path]:
    """Two JSON Lines files of several units each, and a folder of small files."""
    choose = random.Random(0)
    texts = [f"{number} " + "word " * choose.randrange(30) for number in range(300)]
    notes = tmp_path / "notes"
    notes.mkdir()
    for number in range(20):
        (notes / f"{number:02d}.txt").write_text(f"note {number}")
    first = write_lines(tmp_path / "first.jsonl", texts[:200])
    return [first, notes, write_lines(tmp_path / "second.jsonl", texts[200:])]


def expected_texts(corpus: list[Path]) -> list[str]:
    texts = [path.read_text() for path in corpus[1].iterdir()]
    for path in (corpus[0], corpus[2]):
        texts += [json.loads(line)["text"] for line in path.read_text().splitlines()]
    return texts


@pytest.fixture
def whole(corpus: list[Path], tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, bytes]:
    """The files of an uninterrupted call with some documents held out."""
    request.getfixturevalue("small_limits")
    run(corpus, tmp_path / "whole", held_out=0.1, shard_tokens=5000)
    return content_of(tmp_path / "whole")


OPTIONS = {"held_out": 0.1, "shard_tokens": 5000}


def test_every_document_once_and_shuffled(corpus: list[Path], tmp_path: Path) -> None:
    result = run(corpus, tmp_path / "out")
    found = texts_of(result.train)
    assert Counter(found) == Counter(expected_texts(corpus))
    assert result.held_out is None
    assert not result.already_finished
    numbers = [int(text.split()[0]) for text in found if text[0].isdigit()]
    # In a shuffled order, neighbours are on average a third of the range apart.
    assert 80 < np.abs(np.diff(numbers)).mean() < 120
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        "prepare.json",
        "shard-00000.offsets",
        "shard-00000.tokens",
        "skipped.json",
    ]


def test_sources_are_counted(corpus: list[Path], tmp_path: Path) -> None:
    result = run(corpus, tmp_path / "out")
    counted = {source.name: source.num_documents for source in result.train.sources}
    assert counted == {str(corpus[0]): 200, str(corpus[1]): 20, str(corpus[2]): 100}
    assert sum(source.num_tokens for source in result.train.sources) == result.train.num_tokens


def test_limits_and_order_of_work_change_nothing(
    corpus: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = []
    for run_tokens, bucket_tokens in ((10**6, 10**6), (900, 3000), (5000, 800)):
        monkeypatch.setattr(prepare_module, "RUN_TOKENS", run_tokens)
        monkeypatch.setattr(spill, "BUCKET_TOKENS", bucket_tokens)
        output = tmp_path / f"out-{run_tokens}"
        run(corpus, output, **OPTIONS)
        contents.append(content_of(output))
    assert contents[0] == contents[1] == contents[2]


def test_seed_changes_the_order_alone(corpus: list[Path], tmp_path: Path) -> None:
    first, second = (run(corpus, tmp_path / f"{seed}", seed=seed) for seed in (0, 1))
    assert texts_of(first.train) != texts_of(second.train)
    assert Counter(texts_of(first.train)) == Counter(texts_of(second.train))


def test_held_out_documents_are_apart(corpus: list[Path], tmp_path: Path) -> None:
    result = run(corpus, tmp_path / "out", held_out=0.1)
    train, held_out = texts_of(result.train), texts_of(result.held_out)
    assert len(held_out) == 32
    assert Counter(train + held_out) == Counter(expected_texts(corpus))
    assert result.held_out is not None
    assert result.held_out.path == tmp_path / "out" / "held-out"


def test_tiny_corpus_holds_out_one_document(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["a", "b", "c"])
    result = run([path], tmp_path / "out", held_out=0.01)
    assert result.held_out is not None
    assert (result.train.num_documents, result.held_out.num_documents) == (2, 1)


@settings(deadline=None, max_examples=25)
@given(
    files=st.lists(
        st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=25),
        min_size=1,
        max_size=3,
    ),
    limits=st.tuples(st.integers(50, 500), st.integers(1, 200), st.integers(1, 300)),
    shard_tokens=st.integers(1, 400),
)
def test_any_documents_come_through(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[str]],
    limits: tuple[int, int, int],
    shard_tokens: int,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    files[0].append("never without a document")
    paths = [write_lines(folder / f"{index}.jsonl", texts) for index, texts in enumerate(files)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "UNIT_BYTES", limits[0])
        patch.setattr(prepare_module, "RUN_TOKENS", limits[1])
        patch.setattr(spill, "BUCKET_TOKENS", limits[2])
        result = run(paths, folder / "out", shard_tokens=shard_tokens)
    texts = [text for file in files for text in file]
    assert Counter(texts_of(result.train)) == Counter(filter(str.strip, texts))
    # Blank texts are skipped, and a file without a line counts as empty too.
    num_blank = sum(not text.strip() for text in texts)
    assert result.skipped.total == num_blank + files.count([])


def test_two_workers_give_the_same_bytes(
    corpus: list[Path], tmp_path: Path, whole: dict[str, bytes]
) -> None:
    seen: list[PrepareProgress] = []
    run(corpus, tmp_path / "out", workers=2, on_progress=seen.append, **OPTIONS)
    assert content_of(tmp_path / "out") == whole
    tokenizing = [progress for progress in seen if progress.stage == "tokenizing"]
    assert tokenizing[-1].done == tokenizing[-1].total
    assert tokenizing[-1].documents == 320
    assert (seen[-1].stage, seen[-1].done, seen[-1].documents) == ("writing", seen[-1].total, 320)


@pytest.mark.parametrize("kill_at_sync", [6, 11, 37])
def test_killed_again_and_again(
    corpus: list[Path], tmp_path: Path, whole: dict[str, bytes], kill_at_sync: int
) -> None:
    options = {"inputs": corpus, "output": tmp_path / "out", "settings": OPTIONS}
    deaths = 0
    # Where it cannot get through the writing in so few steps, it must at last be left alone.
    while deaths < 8:
        if run_process(**options, kill_at_sync=kill_at_sync).returncode == 0:
            break
        assert not (tmp_path / "out" / "manifest.json").exists() or kill_at_sync == 37
        deaths += 1
    assert deaths
    assert run_process(**options).returncode == 0
    assert content_of(tmp_path / "out") == whole


def test_killed_at_any_step_of_the_writing(
    corpus: list[Path], tmp_path: Path, whole: dict[str, bytes]
) -> None:
    class Stopped(BaseException):
        pass

    def stop_after(count: int) -> Callable[[PrepareProgress], None]:
        def on_progress(progress: PrepareProgress) -> None:
            if progress.stage == "writing" and progress.documents >= count:
                raise Stopped

        return on_progress

    for count in (1, 32, 33, 200, 320):
        with pytest.raises(Stopped):
            run(corpus, tmp_path / "out", on_progress=stop_after(count), **OPTIONS)
    run(corpus, tmp_path / "out", **OPTIONS)
    assert content_of(tmp_path / "out") == whole


def test_workers_of_a_killed_process_end(
    corpus: list[Path], tmp_path: Path, whole: dict[str, bytes]
) -> None:
    options = {
        "inputs": corpus,
        "output": tmp_path / "out",
        "settings": OPTIONS,
        "workers": 2,
        "encoder": "make_slow_encode",
    }
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
    }
    process = subprocess.Popen(
        [sys.executable, str(RUNNER), json.dumps(options, default=str)], env=environment
    )
    unfinished = tmp_path / "out" / "unfinished"
    while process.poll() is None and not list(unfinished.glob("*.json")):
        time.sleep(0.01)
    workers = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run(corpus, tmp_path / "out", **OPTIONS)
    assert content_of(tmp_path / "out") == whole


@pytest.mark.usefixtures("small_limits")
def test_dead_worker_is_told_and_the_work_goes_on(corpus: list[Path], tmp_path: Path) -> None:
    poisoned = write_lines(tmp_path / "third.jsonl", ["a", "poison"])
    inputs = [*corpus, poisoned]
    with pytest.raises(RunError, match=r"a worker process died \(SIGKILL"):
        run(inputs, tmp_path / "out", workers=2, factory=byte_encoder.make_deadly_encode)
    assert not multiprocessing.active_children()
    result = run(inputs, tmp_path / "out")
    assert Counter(texts_of(result.train)) == Counter([*expected_texts(corpus), "a", "poison"])


@pytest.mark.parametrize("workers", [1, 2])
def test_error_of_a_worker_arrives(corpus: list[Path], tmp_path: Path, workers: int) -> None:
    with pytest.raises(ValueError, match="no such tokenizer"):
        run(corpus, tmp_path / "out", workers=workers, factory=byte_encoder.make_broken_encode)
    assert not multiprocessing.active_children()


def test_finished_work_is_not_done_again(corpus: list[Path], tmp_path: Path) -> None:
    first = run([*corpus], tmp_path / "out", **OPTIONS)
    before = content_of(tmp_path / "out")
    again = run(corpus, tmp_path / "out", factory=byte_encoder.make_broken_encode, **OPTIONS)
    assert again.already_finished
    assert again.train == first.train
    assert content_of(tmp_path / "out") == before


def test_other_work_in_the_same_folder_is_refused(corpus: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(corpus, output)
    with pytest.raises(RunError, match="another command: seed was 0, now 1; choose another output"):
        run(corpus, output, seed=1)
    with pytest.raises(RunError, match="tokenizer was 'bytes', now 'words'"):
        run(corpus, output, fingerprint="words")
    with pytest.raises(RunError, match="inputs was"):
        run(corpus[:2], output)
    (corpus[1] / "20.txt").write_text("one more")
    with pytest.raises(RunError, match=r"20\.txt is new since then"):
        run(corpus, output)
    (corpus[1] / "20.txt").unlink()
    (corpus[1] / "03.txt").write_text("other")
    with pytest.raises(RunError, match=r"03\.txt has changed since then"):
        run(corpus, output)
    (corpus[1] / "03.txt").unlink()
    with pytest.raises(RunError, match=r"03\.txt is missing now"):
        run(corpus, output)


def test_input_that_changes_meanwhile(corpus: list[Path], tmp_path: Path) -> None:
    def change(_: PrepareProgress) -> None:
        with corpus[0].open("a") as file:
            file.write('{"text": "late"}\n')

    with pytest.raises(RunError, match=r"first\.jsonl: changed while"):
        run(corpus, tmp_path / "out", on_progress=change)


def test_output_that_cannot_be_used(corpus: list[Path], tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("")
    with pytest.raises(RunError, match=r"not empty \(contains thesis\.tex\)"):
        run(corpus, foreign)
    with pytest.raises(RunError, match="not a folder"):
        run(corpus, foreign / "thesis.tex")
    with pytest.raises(RunError, match="lies within the input"):
        run([tmp_path / "notes"], tmp_path / "notes" / "out")


def test_output_that_may_not_be_written(
    corpus: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunError, match=r"out: cannot be written: .*Read-only file system; choose"):
        run(corpus, tmp_path / "out")


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"corpus-\xff")
    folder.mkdir()
    (folder / os.fsdecode(b"a\xfe.txt")).write_text("text")
    (folder / os.fsdecode(b"b\xfe.jsonl")).write_text("broken")
    for _ in range(2):  # made, and read back
        result = run([folder], tmp_path / "out")
        assert result.train.num_documents == result.skipped.total == 1


def test_two_processes_cannot_share_a_folder(corpus: list[Path], tmp_path: Path) -> None:
    def again(_: PrepareProgress) -> None:
        run(corpus, tmp_path / "out")

    with pytest.raises(RunError, match="another process is at work"):
        run(corpus, tmp_path / "out", on_progress=again)


def test_full_disk_loses_nothing(
    corpus: list[Path], tmp_path: Path, whole: dict[str, bytes]
) -> None:
    options = {"inputs": corpus, "output": tmp_path / "out", "settings": OPTIONS}
    # The first limit is met by a run, the second one by a shard.
    for file_limit in (3000, 9000):
        ended = run_process(**options, file_limit=file_limit)
        assert ended.returncode == 1
        assert "RunError" in ended.stderr
        assert "the disk is full" in ended.stderr
        assert "run the same command again" in ended.stderr
    assert list((tmp_path / "out" / "unfinished").glob("unit-*.json"))
    assert not list((tmp_path / "out").rglob(f"{TEMPORARY_PREFIX}*"))
    assert run_process(**options).returncode == 0
    assert content_of(tmp_path / "out") == whole


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("w") as file:
        for number in range(60_000):
            file.write(json.dumps({"text": f"{number} " * 130}) + "\n")
    megabytes = (tmp_path / "a.jsonl").stat().st_size >> 20
    assert megabytes > 40
    limits = {"unit_bytes": 4 << 20, "run_tokens": 1 << 20, "bucket_tokens": 1 << 20}
    ended = run_process(inputs=[tmp_path / "a.jsonl"], output=tmp_path / "out", limits=limits)
    found = json.loads(ended.stdout)
    assert found["documents"] == 60_000
    assert found["kilobytes"] < 35 << 10


@pytest.mark.usefixtures("small_limits")
def test_bad_records_are_counted_over_all_units(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = "".join(json.dumps({"text": f"{number} " * 20}) + "\nbad\n" for number in range(100))
    path.write_text(good)
    (tmp_path / "b.bin").write_bytes(b"a\0b")
    result = run([path, tmp_path / "b.bin"], tmp_path / "out")
    assert result.skipped.counts == {"broken JSON": 100, "binary": 1}
    assert result.skipped.examples[0] == f"{path}, line 2: broken JSON"
    assert run([path, tmp_path / "b.bin"], tmp_path / "out").skipped == result.skipped
    with pytest.raises(DocumentError, match="line 2: broken JSON"):
        run([path], tmp_path / "strict", strict=True)


def test_document_without_tokens_is_counted(tmp_path: Path) -> None:
    def make_encode() -> Callable[[list[str]], list[list[int]]]:
        return lambda texts: [[ord(letter) for letter in text if letter != "-"] for text in texts]

    path = write_lines(tmp_path / "a.jsonl", ["a", "--", "b"])
    result = run([path], tmp_path / "out", factory=make_encode)
    assert result.train.num_documents == 2
    assert result.skipped.examples == [f"{path}, document 2: no tokens"]


def test_corpus_without_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "x"}\n')
    with pytest.raises(DocumentError, match=r"have 0 documents.*no field 'text'"):
        run([path], tmp_path / "out")
    # With the name put right, the same folder can be used.
    assert run([path], tmp_path / "out", text_field="body").train.num_documents == 1


def test_id_outside_the_vocabulary(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["a", "b"])
    with pytest.raises(InputError, match=r"a\.jsonl, document 1: token id 256 is outside"):
        run([path], tmp_path / "out", factory=lambda: lambda texts: [[256] for _ in texts])


@pytest.mark.parametrize(
    "options", [{"held_out": 1.0}, {"held_out": -0.1}, {"seed": -1}, {"shard_tokens": 0}]
)
def test_bad_settings(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(options))):
        PrepareSettings(**options)


def test_keys_depend_on_the_number_alone() -> None:
    keys = document_keys(3, 5, 0, 100)
    assert keys.dtype == np.uint64
    assert np.array_equal(document_keys(3, 5, 40, 100), keys[40:])
    assert not np.array_equal(document_keys(3, 6, 0, 100), keys)
    assert not np.array_equal(document_keys(4, 5, 0, 100), keys)


def test_cut_is_before_white_space_after_a_word() -> None:
    assert cut_before_space("ab  cd ef", 0, 8) == 6
    assert cut_before_space("ab  cd ef", 0, 5) == 2
    assert cut_before_space("abcdef", 0, 4) == 4


@settings(deadline=None, max_examples=50)
@given(text=st.text(" \nab", max_size=100), limit=st.integers(1, 20))
def test_pieces_are_the_whole_document(text: str, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modernbert.data.tokenizing.PIECE_CHARACTERS", limit)
        pieces = list(_pieces([Document(text, "a", 0)]))
    assert "".join(piece.text for piece in pieces) == text
    assert all(len(piece.text) <= limit for piece in pieces)
    assert [piece.document is None for piece in pieces] == [True] * (len(pieces) - 1) + [False]


def test_pieces_have_the_ids_of_the_whole(shared_data: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(shared_data / "tokenizer" / "modernbert.json"))
    from modernbert.data.documents import DocumentReader

    for document in DocumentReader([shared_data / "books" / "dev.jsonl.xz"]):
        text = document.text[:50_000]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("modernbert.data.tokenizing.PIECE_CHARACTERS", 500)
            pieces = [piece.text for piece in _pieces([Document(text, "a", 0)])]
        assert len(pieces) > 90
        encoded = tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        ids = [token_id for piece in encoded for token_id in piece.ids]
        assert ids == tokenizer.encode(text, add_special_tokens=False).ids
