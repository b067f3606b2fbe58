"""Files and folders that are either whole or absent, whenever the process or the machine dies.

Everything is written beside its place under a temporary name, made durable, and then renamed.
What a killed process leaves behind bears `TEMPORARY_PREFIX` and is cleared by `remove_leftovers`.

    one file, its content at hand          write_whole(path, content)
    one file, written piece by piece       with new_file(path) as file: ...
    a folder that is new                   with new_folder(path) as folder: ...
    a folder that may be there already     with updated_folder(path) as folder: ...
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY_PREFIX = ".partial-"


def write_whole(path: Path, *contents: bytes | memoryview) -> None:
    """Write a file of these contents, so that `path` holds all of it or is as it was before."""
    with new_file(path) as file:
        for content in contents:
            file.write(content)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write that takes the place of `path` when the block ends without an error."""
    # Two processes may write the same file: the last one's stays, and it is whole.
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes `path`, which must not exist, when the block ends well.

    Its files are made durable before the rename, so a folder under its final name is complete.
    """
    with _filled_folder(path.with_name(TEMPORARY_PREFIX + path.name)) as temporary:
        yield temporary
        sync_tree(temporary)
        temporary.rename(path)
    sync(path.parent)


@contextmanager
def updated_folder(path: Path) -> Iterator[Path]:
    """A folder to fill whose files take their places in `path` when the block ends well.

    Where `path` is new it appears at once and whole. Where it exists, its other files stay, and
    each file that is replaced is the whole old one or the whole new one.
    """
    if not path.exists():
        with new_folder(path) as temporary:
            yield temporary
        return
    with _filled_folder(path / f"{TEMPORARY_PREFIX}update") as temporary:
        yield temporary
        sync_tree(temporary)
        for file in sorted(temporary.rglob("*")):
            place = path / file.relative_to(temporary)
            if file.is_dir():
                place.mkdir(exist_ok=True)
            else:
                file.replace(place)
                sync(place.parent)


def remove_folder(path: Path) -> None:
    """Delete a folder; a kill halfway leaves a leftover, never half a folder under its name."""
    temporary = path.with_name(TEMPORARY_PREFIX + path.name)
    shutil.rmtree(temporary, ignore_errors=True)
    path.rename(temporary)
    shutil.rmtree(temporary)


def remove_leftovers(folder: Path) -> None:
    """Clear what killed writers left in `folder`; nobody may be writing there."""
    for leftover in folder.glob(TEMPORARY_PREFIX + "*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make all that is in a folder durable, at any depth."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


@contextmanager
def _filled_folder(temporary: Path) -> Iterator[Path]:
    """An empty folder that is gone at the end: moved by then, or not wanted."""
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
