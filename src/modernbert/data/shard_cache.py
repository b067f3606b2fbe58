"""Files of remote shards on the local disk: no more of them than a bound, shared by processes.

A file is known by its hash, so that shards with equal files share them. Who uses a file holds a
lock on it, and the lock goes with the process, however it ends; so what is deleted for the room,
the least recently used first, is never in use. A file is hashed when it comes, and once more when a
process first uses it.
"""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from modernbert.data.remote_files import FetchSettings, fetch
from modernbert.data.shard_files import FileRecord
from modernbert.errors import ShardError
from modernbert.files import locks
from modernbert.reading import cache_folder
from modernbert.settings import Doc, Settings

_DATA, _LOCK, _PARTIAL, _FETCHING = ".data", ".lock", ".partial", ".fetching"
# The time of the last use is noted no more often.
_TOUCH_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class CacheSettings(Settings):
    """Where files of remote shards are kept, and how many; local shards need no cache.

    Raises:
        SettingsError: A value is out of its range.
    """

    folder: Annotated[
        Path | None,
        Doc("Where to keep the files; none for `modernbert/shards` in the user's cache folder."),
    ] = None
    max_bytes: Annotated[
        int, Ge(1), Doc("The most bytes to keep; leave room for two files of every source.")
    ] = 100_000_000_000
    timeout_seconds: Annotated[
        float, Gt(0), Doc("Give up an attempt that receives nothing for this many seconds.")
    ] = 60.0
    attempts: Annotated[int, Ge(1), Doc("The number of attempts to fetch a file.")] = 6

    @property
    def fetching(self) -> FetchSettings:
        """How patient to be with the storage."""
        return FetchSettings(timeout_seconds=self.timeout_seconds, attempts=self.attempts)

    @property
    def place(self) -> Path:
        if self.folder is not None:
            return self.folder
        return cache_folder("shards")


@dataclass
class _Open:
    """A file that this process uses.

    Attributes:
        lock: The descriptor that holds it.
    """

    array: np.ndarray
    lock: int
    touched: float = field(default_factory=time.monotonic)


@lru_cache
def cache_of(settings: CacheSettings) -> "ShardCache":
    """Return the one cache of these settings in this process."""
    return ShardCache(settings)


class ShardCache:
    """The cache as one process uses it, from any of its threads."""

    def __init__(self, settings: CacheSettings) -> None:
        self.settings, self.folder = settings, settings.place
        self._open: dict[str, _Open] = {}
        self._verified: set[tuple[str, int]] = set()
        self._mutex = threading.RLock()

    def map(self, url: str, record: FileRecord, dtype: str) -> np.ndarray:
        """Return a file's content, mapped; fetched from `url` if it is not there.

        Raises:
            ShardError: It cannot be fetched, is not what was written, or there is no room for it.
        """
        with self._mutex:
            opened = self._open.get(record.sha256)
            if opened is None:
                opened = self._open[record.sha256] = self._use(url, record)
            elif time.monotonic() - opened.touched > _TOUCH_SECONDS:
                os.utime(self._path(record.sha256, _DATA))
                opened.touched = time.monotonic()
            return opened.array.view(dtype)

    def close(self) -> None:
        """Let go of all files; arrays that were given out stay readable."""
        with self._mutex:
            for key in list(self._open):
                self._release(key)

    def _use(self, url: str, record: FileRecord) -> _Open:
        self._make_folder()
        path = self._path(record.sha256, _DATA)
        while True:
            descriptor = self._lock(record.sha256, locks().LOCK_SH)
            if self._is_whole(path, record):
                os.utime(path)
                return _Open(np.memmap(path, dtype=np.uint8, mode="r"), descriptor)
            os.close(descriptor)
            # Whoever comes first fetches it; the others wait for the lock, and find it there.
            descriptor = self._lock(record.sha256 + _FETCHING, locks().LOCK_EX)
            try:
                if not self._is_whole(path, record):
                    self._fetch(url, record, path)
            finally:
                os.close(descriptor)

    def _is_whole(self, path: Path, record: FileRecord) -> bool:
        """Whether the file is there and what was written; hashed at its first use here."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        if status.st_size != record.num_bytes:
            return False
        identity = record.sha256, status.st_ino
        if identity not in self._verified:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != record.sha256:
                    return False
            self._verified.add(identity)
        return True

    def _fetch(self, url: str, record: FileRecord, path: Path) -> None:
        """Fetch a file whose lock is held; what is there under its name is of no use.

        Whoever uses that all the same goes on to have it, without its name.
        """
        path.unlink(missing_ok=True)
        self._remove_partial(record.sha256)
        partial = self._path(record.sha256, _PARTIAL)
        try:
            with self._making_room():
                self._make_room(record.num_bytes, url)
                with partial.open("wb") as reserved:  # so that others count it
                    reserved.truncate(record.num_bytes)
            fetch(
                url,
                partial,
                self.settings.fetching,
                num_bytes=record.num_bytes,
                sha256=record.sha256,
            )
            self._verified.add((record.sha256, partial.stat().st_ino))
            partial.replace(path)
        except OSError as error:
            raise ShardError(
                f"{self.folder}: {url} cannot be kept: {error}; make room, or choose another folder"
            ) from None
        finally:
            self._remove_partial(record.sha256)

    def _make_room(self, num_bytes: int, url: str) -> None:
        """Delete files that nobody uses, the least recently used first."""
        self._remove_abandoned()
        files = sorted(
            ((path, path.stat()) for path in self.folder.glob(f"*{_DATA}")),
            key=lambda each: each[1].st_mtime_ns,
        )
        reserved = sum(path.stat().st_size for path in self.folder.glob(f"*{_PARTIAL}"))
        used = reserved + sum(status.st_size for _, status in files)
        for path, status in files:
            if used + num_bytes <= self.settings.max_bytes:
                return
            if self._evict(path.name.removesuffix(_DATA)):
                used -= status.st_size
        if used + num_bytes > self.settings.max_bytes:
            raise ShardError(
                f"{self.folder}: no room for the {num_bytes:,} bytes of {url}: max_bytes is "
                f"{self.settings.max_bytes:,} and {used:,} are in use; raise it in [shard_cache]"
            )

    def _evict(self, key: str) -> bool:
        """Delete a file unless another process uses it; this one lets go of it."""
        self._release(key)
        try:
            descriptor = self._lock(key, locks().LOCK_EX | locks().LOCK_NB)
        except BlockingIOError:
            return False
        try:
            self._path(key, _DATA).unlink(missing_ok=True)
        finally:
            os.close(descriptor)
        return True

    def _remove_abandoned(self) -> None:
        """Delete partial files of processes that died during a download."""
        for partial in self.folder.glob(f"*{_PARTIAL}*"):
            key = partial.name.partition(".")[0]
            try:
                descriptor = self._lock(key + _FETCHING, locks().LOCK_EX | locks().LOCK_NB)
            except BlockingIOError:
                continue
            self._remove_partial(key)
            os.close(descriptor)

    def _remove_partial(self, key: str) -> None:
        for partial in self.folder.glob(f"{key}{_PARTIAL}*"):
            partial.unlink(missing_ok=True)

    def _release(self, key: str) -> None:
        if (opened := self._open.pop(key, None)) is not None:
            os.close(opened.lock)

    @contextmanager
    def _making_room(self) -> Iterator[None]:
        descriptor = self._lock("room", locks().LOCK_EX)
        try:
            yield
        finally:
            os.close(descriptor)

    def _lock(self, key: str, kind: int) -> int:
        descriptor = os.open(self._path(key, _LOCK), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            locks().flock(descriptor, kind)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _path(self, key: str, suffix: str) -> Path:
        return self.folder / f"{key}{suffix}"

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ShardError(
                f"{self.folder}: cannot hold shards: {error.strerror}; choose another folder in "
                "[shard_cache]"
            ) from None
