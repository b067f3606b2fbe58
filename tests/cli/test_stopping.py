"""Ctrl-C at any moment, and what the system refuses: one line, and never a traceback."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.full_disk import largest_file
from typer.core import TyperGroup

_NOBODY = 65534

TALKS = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup ignores it
from modernbert.cli import app
def verb(*_, **__):
    print("begun", flush=True)
    {body}
app.app.registered_commands = []
app.app.command("talk")(lambda: verb())
import modernbert.__main__ as start
sys.argv = ["modernbert", "talk"]
start.run()
"""


def begin(body: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", TALKS.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def one_line(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.startswith("stopped") and said.count("\n") == 1


def test_ctrl_c_ends_a_verb_with_one_line() -> None:
    process = begin("time.sleep(60)")
    process.send_signal(signal.SIGINT)
    one_line(process)


def test_a_second_ctrl_c_is_no_traceback_either() -> None:
    process = begin("""
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaning up", flush=True)
        time.sleep(60)
    """)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning up\n"
    process.send_signal(signal.SIGINT)
    one_line(process)


def test_a_second_ctrl_c_while_the_first_is_told_takes_no_word_away() -> None:
    process = begin("""
    import os
    told = app.tell
    def tell(text):
        os.kill(os.getpid(), signal.SIGINT)
        told(text)
    app.tell = tell
    os.kill(os.getpid(), signal.SIGINT)
    """)
    one_line(process)


def test_ctrl_c_before_a_verb_is_told_too(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TyperGroup, "parse_args", stopped)
    answer = run("info")
    assert answer.exit_code == 130 and answer.stderr == "stopped\n"


def test_a_ctrl_c_that_is_swallowed_comes_again() -> None:
    process = begin("""
    class Swallows:
        def __del__(self):
            print("in a destructor", flush=True)
            time.sleep(60)
    Swallows()
    time.sleep(60)
    """)
    assert process.stdout is not None
    assert process.stdout.readline() == "in a destructor\n"
    process.send_signal(signal.SIGINT)
    one_line(process)


@pytest.mark.parametrize("after_seconds", [0.15, 0.3, 0.6, 1.2])
def test_ctrl_c_while_it_begins(tmp_path: Path, after_seconds: float) -> None:
    """Python's own start is not ours, so the process says when it has begun with our code."""
    code = (
        "import sys; print('begun', flush=True); import modernbert.__main__ as start\n"
        "sys.argv = ['modernbert', 'info', '--machine']; start.run()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after_seconds)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    if "modernbert/__init__.py" not in said:  # the import of the package itself
        assert "Traceback" not in said
    assert process.returncode in (0, 130, -signal.SIGINT, 1)


def test_nohup_is_obeyed() -> None:
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import os, modernbert.__main__ as start\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['modernbert', '--version']; start.run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_a_full_disk_is_one_line(run: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    with largest_file(1000):
        answer = run("tokenizer", "train", corpus, tmp_path / "made", "--vocab-size", "384")
    assert answer.exit_code == 2 and answer.stderr.count("error:") == 1
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "made").exists() and not list(tmp_path.glob(".partial*"))


@pytest.fixture
def open_folder(corpus: Path) -> Iterator[Path]:
    """A folder that anyone may write to, with a corpus; that of a test is its user's alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        for place in (folder / "texts.jsonl", folder / "unreadable.jsonl"):
            place.write_bytes(corpus.read_bytes())
        (folder / "unreadable.jsonl").chmod(0)
        (folder / "closed").mkdir(0o555)
        yield folder


@contextmanager
def not_as_the_superuser() -> Iterator[None]:
    """Let go of the rights of the superuser, who may write anywhere."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    "arguments",
    [
        "tokenizer train texts.jsonl closed/made --vocab-size 384",
        "tokenizer train unreadable.jsonl made --vocab-size 384",
        "recipe copy start closed/recipe.toml",
    ],
)
def test_no_permission_is_one_line(
    run: Callable[..., Any], open_folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: str
) -> None:
    monkeypatch.chdir(open_folder)
    # What a verb imports may lie where the superuser alone can read: it is imported before.
    run(*arguments.replace("closed/", "").replace("unreadable", "texts").split())
    shutil.rmtree(open_folder / "made", ignore_errors=True)
    with not_as_the_superuser():
        answer = run(*arguments.split())
    assert answer.exit_code == 2 and "Permission denied" in answer.stderr
    assert answer.stderr.count("error:") == 1 and "Traceback" not in answer.stderr
    assert not (open_folder / "made").exists() and not list((open_folder / "closed").iterdir())


def test_an_error_of_the_system_is_one_line(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from modernbert import files

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "made"))

    monkeypatch.setattr(files, "sync_tree", full)
    (tmp_path / "texts.jsonl").write_text('{"text": "a text of words"}\n' * 50)
    answer = run("tokenizer", "train", tmp_path / "texts.jsonl", tmp_path / "made")
    assert answer.exit_code == 2
    assert "No space left on device" in answer.stderr and answer.stderr.count("\n") <= 2
