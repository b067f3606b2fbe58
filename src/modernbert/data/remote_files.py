"""Files of object storage, read and written through fsspec.

They are fetched in spite of failures, stalls and short reads.

Every attempt is a thread of its own that is watched: when no byte comes for a while it is given
up, and the next attempt begins after a pause that doubles each time.
"""

import errno
import hashlib
import itertools
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from annotated_types import Ge, Gt

from modernbert.errors import InputError, ShardError
from modernbert.settings import Doc, Settings

_CHUNK_BYTES = 1 << 22
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)")  # a single letter is a drive of Windows
_LOCAL = ("file", "local")
_POLL_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.5
# Trying again would not help.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


@dataclass(frozen=True, kw_only=True)
class FetchSettings(Settings):
    """How patient to be with a storage.

    Raises:
        SettingsError: A value is out of its range.
    """

    timeout_seconds: Annotated[
        float, Gt(0), Doc("Give up an attempt that receives nothing for this many seconds.")
    ] = 60.0
    attempts: Annotated[int, Ge(1), Doc("The number of attempts to fetch a file.")] = 6


def is_remote(path: Path | str) -> bool:
    """Return whether it is an address such as s3://bucket/folder, not a path.

    >>> is_remote("s3://bucket/shards"), is_remote("shards/books")
    (True, False)
    """
    return "://" in str(path)


def address_of(path: Path | str) -> str | None:
    """Return the address that a path stands for, as `Path` joins its slashes; None for a path.

    >>> address_of(Path("s3://bucket/texts")), address_of(Path("texts/a.csv"))
    ('s3://bucket/texts', None)
    """
    found = _ADDRESS.fullmatch(path.as_posix() if isinstance(path, Path) else path)
    if found is None or Path(path).exists():
        return None
    protocol, rest = found.groups()
    return f"{protocol}://{'/' if protocol in _LOCAL else ''}{rest}"


def full_address(url: str) -> str:
    """Return an address as the storage writes it, with which the addresses of files in it begin."""
    filesystem, path = _filesystem(url)
    return str(filesystem.unstrip_protocol(path))


def list_remote(url: str) -> list[tuple[str, int]]:
    """List the files below an address, or the one that it names, sorted, with sizes in bytes.

    Raises:
        InputError: They cannot be listed.
    """
    try:
        filesystem, path = _filesystem(url)
        found = filesystem.find(path, detail=True)
        sizes = {filesystem.unstrip_protocol(name): info["size"] for name, info in found.items()}
    except FileNotFoundError:
        return []
    except Exception as error:  # each storage raises its own
        raise InputError(f"{url}: cannot be listed: {_text(error)}") from None
    return sorted(sizes.items())


def write_remote(path: Path, url: str) -> None:
    """Copy a local file to an address.

    Raises:
        OSError: It could not be written, or not whole.
    """
    try:
        filesystem, target = _filesystem(url)
        filesystem.makedirs(filesystem._parent(target), exist_ok=True)
        filesystem.put_file(str(path), target)
        size = filesystem.info(target)["size"]
    except Exception as error:  # each storage raises its own
        raise OSError(errno.EIO, f"cannot be written: {_text(error)}", url) from None
    if size != path.stat().st_size:
        raise OSError(errno.EIO, f"has {size:,} of {path.stat().st_size:,} bytes", url)


def remove_remote(url: str) -> None:
    """Delete what is at an address, if there is anything."""
    filesystem, path = _filesystem(url)
    with suppress(FileNotFoundError):
        filesystem.rm(path, recursive=True)


def read_remote(url: str, settings: FetchSettings) -> bytes:
    """Return the content of a small file.

    Raises:
        ShardError: It is not there, or cannot be read.
    """
    chunks: list[bytes] = []

    def attempt(watch: "_Watch") -> None:
        chunks.clear()
        for chunk in watch.chunks(url):
            chunks.append(chunk)

    _persist(url, attempt, settings)
    return b"".join(chunks)


def fetch(
    url: str,
    target: Path,
    settings: FetchSettings,
    *,
    num_bytes: int,
    sha256: str | None = None,
) -> None:
    """Copy a file to `target`, whole and with these bytes or not at all.

    Args:
        url: Its address.
        target: The path to copy it to.
        settings: How patient to be.
        num_bytes: How many bytes it has.
        sha256: Their hash, where it is known.

    Raises:
        ShardError: It is not there, cannot be read, or its bytes are others at every attempt.
    """

    def attempt(watch: "_Watch") -> None:
        # The name is the attempt's own: one that was given up may come to life again, also after
        # somebody has asked for the same file once more.
        partial = target.with_name(f"{target.name}.{watch.number}")
        try:
            with partial.open("wb") as file:
                _copy(watch, url, file, num_bytes, sha256)
            watch.check()
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    _persist(url, attempt, settings)


def _copy(watch: "_Watch", url: str, file: BinaryIO, num_bytes: int, sha256: str | None) -> None:
    digest, count = hashlib.sha256(), 0
    for chunk in watch.chunks(url):
        file.write(chunk)
        digest.update(chunk)
        count += len(chunk)
    if count != num_bytes:
        raise _Broken(f"got {count} bytes, expected {num_bytes}")
    if sha256 is not None and digest.hexdigest() != sha256:
        raise _Broken("its content is not what was written (sha256 differs)")


class _Broken(Exception):
    """What came is not the file."""


class _GivenUp(Exception):
    """Nobody waits for this attempt any longer."""


_numbers = itertools.count()


class _Watch:
    """One attempt: when it last moved, and whether it is still wanted."""

    def __init__(self) -> None:
        self.number = next(_numbers)  # no other of this process has it
        self.wanted = True
        self.moved_at = time.monotonic()

    def check(self) -> None:
        """Note that something came; stop here if it is too late."""
        self.moved_at = time.monotonic()
        if not self.wanted:
            raise _GivenUp

    def chunks(self, url: str) -> Any:
        """Return the bytes of a file, a chunk at a time."""
        filesystem, path = _filesystem(url)
        with filesystem.open(path, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                self.check()
                yield chunk


def _filesystem(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    filesystem, path = url_to_fs(url)  # type: ignore[no-untyped-call]
    return filesystem, path


def _persist(url: str, attempt: Callable[[_Watch], None], settings: FetchSettings) -> None:
    """Retry until it succeeds; raise the last failure."""
    pause, failure = _FIRST_PAUSE_SECONDS, ""
    for number in range(settings.attempts):
        if number:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        error = _watched(attempt, settings.timeout_seconds)
        if error is None:
            return
        if isinstance(error, ImportError | ValueError):  # of fsspec: a protocol without its library
            raise ShardError(f"{url}: cannot be opened: {error}") from None
        if isinstance(error, _FINAL):
            raise ShardError(f"{url}: cannot be read: {_text(error)}; check the address") from None
        failure = _text(error)
    raise ShardError(
        f"{url}: could not be downloaded in {settings.attempts} attempts; the last failed: "
        f"{failure}"
    )


def _watched(attempt: Callable[[_Watch], None], timeout_seconds: float) -> BaseException | None:
    """Let an attempt run as long as something comes; what went wrong, or None."""
    watch, outcome = _Watch(), list[BaseException]()

    def run() -> None:
        try:
            attempt(watch)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name=f"fetch-{watch.number}", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_SECONDS)
        if thread.is_alive() and time.monotonic() - watch.moved_at > timeout_seconds:
            watch.wanted = False
            return TimeoutError(f"no byte came for {timeout_seconds:g} seconds")
    return outcome[0] if outcome else None


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
