"""Whole or absent: what is seen under the final names at every moment."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from modernbert import files
from modernbert.errors import InUseError, ModelFolderError, TokenizerError
from modernbert.files import (
    TEMPORARY_PREFIX,
    locked,
    new_file,
    new_folder,
    remove_folder,
    remove_leftovers,
    updated_folder,
    write_whole,
)
from modernbert.hashes import HASHES_FILE, find_faults, read_hashes


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != HASHES_FILE)


def test_contents_are_written_one_after_another(tmp_path: Path) -> None:
    write_whole(tmp_path / "row", b"a", memoryview(b"bc"))
    assert (tmp_path / "row").read_bytes() == b"abc" and names_in(tmp_path) == ["row"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "row").write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "row", b"new")
    assert (tmp_path / "row").read_bytes() == b"old" and names_in(tmp_path) == ["row"]


def test_a_file_takes_its_place_at_the_end_only(tmp_path: Path) -> None:
    path = tmp_path / "row"
    path.write_bytes(b"old")
    with new_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_a_failed_file_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "row"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), new_file(path) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder"
    with new_folder(path) as partial:
        (partial / "a").write_text("1")
        assert not path.exists() and partial.parent == path.parent
    assert [file.name for file in path.iterdir()] == ["a"]


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "folder") as partial:
        (partial / "a").write_text("1")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_written_over_the_leftover_of_a_killed_writer(tmp_path: Path) -> None:
    leftover = tmp_path / f"{TEMPORARY_PREFIX}folder"
    leftover.mkdir()
    (leftover / "stale").touch()
    with new_folder(tmp_path / "folder") as partial:
        (partial / "a").touch()
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["a"]


def test_an_updated_folder_that_is_new_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with updated_folder(path) as partial:
        (partial / "a").write_text("1")
        assert not path.exists()
    assert names_in(path) == ["a"] and names_in(tmp_path) == ["folder"]


def test_an_updated_folder_keeps_its_other_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    with updated_folder(tmp_path) as partial:
        (partial / "a").write_text("new")
        (partial / "deep").mkdir()
        (partial / "deep" / "c").write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert names_in(tmp_path) == ["a", "b", "deep"]
    assert (tmp_path / "a").read_text() == (tmp_path / "deep" / "c").read_text() == "new"
    assert (tmp_path / "b").read_text() == "old"


def test_a_failed_update_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyError), updated_folder(tmp_path) as partial:
        (partial / "a").write_text("new")
        raise KeyError
    assert names_in(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("inner", [TokenizerError, None])
def test_a_folder_that_cannot_be_written_is_told_of_by_its_own_name(
    tmp_path: Path, inner: type[TokenizerError] | None
) -> None:
    """A part of a folder has a temporary name while it is written, which says nothing."""
    path = tmp_path / "folder"
    with (
        pytest.raises(ModelFolderError, match=rf"^{path}: cannot be written: .*full$"),
        updated_folder(path, error=ModelFolderError) as partial,
        updated_folder(partial / "part", error=inner),
    ):
        raise OSError(errno.ENOSPC, "full")
    with pytest.raises(OSError, match="full"), updated_folder(path):
        raise OSError(errno.ENOSPC, "full")
    assert names_in(tmp_path) == []


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f"{TEMPORARY_PREFIX}folder").mkdir()
    (tmp_path / f"{TEMPORARY_PREFIX}folder" / "a").touch()
    (tmp_path / f"{TEMPORARY_PREFIX}file").touch()
    (tmp_path / "kept").touch()
    remove_leftovers(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["kept"]


def test_remove_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").touch()
    remove_folder(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def pair(folder: Path) -> tuple[str, str]:
    return (folder / "a.json").read_text(), (folder / "deep" / "b.bin").read_text()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with two files that belong together, and others."""
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.json", "deep/b.bin", "deep/other", "vocabulary"):
        (folder / name).write_text("old")
    (folder / "link").symlink_to("vocabulary")
    return folder


def update(folder: Path) -> None:
    with updated_folder(folder) as partial:
        (partial / "deep").mkdir()
        (partial / "a.json").write_text("new")
        (partial / "deep" / "b.bin").write_text("new")


@pytest.mark.parametrize("way", ["at once", "one by one", "no links", "from within"])
def test_an_update_keeps_what_is_not_replaced(
    old: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "one by one":
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    if way == "no links":
        monkeypatch.setattr(os, "link", lambda *_, **__: os.open("/nowhere", os.O_RDONLY))
    if way == "from within":
        monkeypatch.chdir(old / "deep")
    old.chmod(0o750)
    update(old)
    assert pair(old) == ("new", "new") and old.stat().st_mode & 0o777 == 0o750
    assert names_in(old) == ["a.json", "deep", "link", "vocabulary"]
    assert names_in(old / "deep") == ["b.bin", "other"]
    assert (old / "link").is_symlink() and (old / "link").read_text() == "old"
    assert names_in(old.parent) == ["model"]
    if way == "from within":
        assert names_in(Path.cwd()) == ["b.bin", "other"]


def test_an_update_through_a_link(old: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("model")
    update(tmp_path / "latest")
    assert (tmp_path / "latest").is_symlink() and pair(old) == ("new", "new")


KILLED = """
import os, sys, signal
from pathlib import Path
from modernbert import files
from modernbert.errors import InUseError, ModelFolderError, TokenizerError

left = int(sys.argv[2])

def count(function):
    def counted(*arguments, **options):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*arguments, **options)
    return counted

for home, name in [(os, "fsync"), (os, "link"), (os, "mkdir"), (os, "unlink"), (os, "rename"),
                   (os, "replace"), (os, "rmdir"), (files, "_exchange")]:
    setattr(home, name, count(getattr(home, name)))
with files.updated_folder(Path(sys.argv[1])) as partial:
    (partial / "deep").mkdir()
    (partial / "a.json").write_text("new")
    (partial / "deep" / "b.bin").write_text("new")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the test's own swap is Linux's")
def test_files_that_belong_together_are_of_one_time_at_every_kill(old: Path) -> None:
    """Before each step of the file system in turn, until one update goes through."""
    seen = set()
    for steps in range(200):
        found = subprocess.run(
            [sys.executable, "-c", KILLED, str(old), str(steps)],
            timeout=60,
        ).returncode
        seen.add(pair(old))
        if found == 0:
            break
        if pair(old) == ("new", "new"):  # begin again from the old state
            for name in ("a.json", "deep/b.bin"):
                (old / name).write_text("old")
    assert steps > 10 and found == 0
    assert seen == {("old", "old"), ("new", "new")}
    assert names_in(old.parent) == ["model"] and ".partial-update" not in names_in(old)


IMPORTS = "import sys; from pathlib import Path"


def in_another_process(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that ran `code` up to a first line of output, and waits for its input to close."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; from pathlib import Path\n{code}",
            *map(str, arguments),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


FILLS = """
from modernbert.files import {function}
with {function}(Path(sys.argv[1])) as partial:
    (partial / "a").write_text("theirs")
    print("begun", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("function", [new_folder, updated_folder])
def test_a_folder_that_another_process_fills_is_refused(tmp_path: Path, function: Any) -> None:
    path = tmp_path / "folder"
    other = in_another_process(FILLS.format(function=function.__name__), path)
    with pytest.raises(InUseError, match="another process is at work"), function(path):
        pass
    other.communicate("")
    assert other.returncode == 0
    assert names_in(tmp_path) == ["folder"] and (path / "a").read_text() == "theirs"


def test_a_folder_that_a_killed_process_was_filling_is_free(tmp_path: Path) -> None:
    other = in_another_process(FILLS.format(function="new_folder"), tmp_path / "folder")
    other.kill()
    other.communicate()
    with new_folder(tmp_path / "folder") as partial:
        (partial / "b").touch()
    assert names_in(tmp_path) == ["folder"] and names_in(tmp_path / "folder") == ["b"]


def test_a_folder_that_has_come_to_exist_is_kept(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="meanwhile"), new_folder(tmp_path / "folder"):
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "theirs").touch()
    assert names_in(tmp_path) == ["folder"] and names_in(tmp_path / "folder") == ["theirs"]


def test_a_folder_is_waited_for_when_its_holder_is_about_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PATIENCE_SECONDS", 60.0)
    held = locked(tmp_path)
    held.__enter__()
    releasing = threading.Timer(0.1, held.__exit__, (None, None, None))
    releasing.start()
    with locked(tmp_path):
        pass
    releasing.join()


WRITES = """
from modernbert.files import new_file
with new_file(Path(sys.argv[1])) as file:
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_what_killed_writers_of_a_file_left_is_removed_and_the_work_of_living_ones_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file[1]"
    killed, living = (in_another_process(WRITES, path) for _ in range(2))
    killed.kill()
    killed.communicate()
    write_whole(path, b"ours")
    assert len(names_in(tmp_path)) == 2
    living.communicate("")
    assert living.returncode == 0 and names_in(tmp_path) == ["file[1]"]


def test_a_lock_may_be_shared(tmp_path: Path) -> None:
    refused = pytest.raises(InUseError, match="another process")
    with locked(tmp_path, shared=True), locked(tmp_path, shared=True), refused, locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(files._fcntl, "flock", refuse)
    with new_folder(tmp_path / "folder") as partial:
        (partial / "a").touch()
    assert names_in(tmp_path) == ["folder"]


def test_an_updated_folder_keeps_hashes_of_all_that_was_written_into_it(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for name in ("a", "b"):
        with updated_folder(path) as partial:
            (partial / "deep").mkdir()
            (partial / "deep" / name).write_text(name)
    hashes = read_hashes(path / HASHES_FILE)
    assert sorted(hashes) == ["deep/a", "deep/b"] and not list(find_faults(path, hashes))
    (path / "deep" / "a").write_text("x")
    assert list(find_faults(path, hashes)) == [f"{path / 'deep/a'}: differs from its hash"]


def test_damaged_hashes_do_not_keep_a_folder_from_being_written(tmp_path: Path) -> None:
    (tmp_path / HASHES_FILE).write_text("{")
    with updated_folder(tmp_path) as partial:
        (partial / "a").touch()
    assert sorted(read_hashes(tmp_path / HASHES_FILE)) == ["a"]
