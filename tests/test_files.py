"""Whole or absent: what is seen under the final names at every moment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modernbert import files
from modernbert.files import (
    TEMPORARY_PREFIX,
    new_file,
    new_folder,
    remove_folder,
    remove_leftovers,
    updated_folder,
    write_whole,
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
