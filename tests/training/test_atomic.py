"""Whole or absent: what is seen under the final names at every moment."""

from pathlib import Path

import pytest

from modernbert.training.atomic import (
    TEMPORARY_PREFIX,
    new_file,
    new_folder,
    remove_folder,
    remove_leftovers,
)


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
