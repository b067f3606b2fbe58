"""Files and folders that are whole or absent, whenever a process dies.

Everything is written beside its place under a temporary name, made durable, and then renamed.
What a killed process leaves behind bears `TEMPORARY_PREFIX` and is cleared by `remove_leftovers`.

    one file, its content at hand          write_whole(path, content)
    one file, written piece by piece       with new_file(path) as file: ...
    a folder that is new                   with new_folder(path) as folder: ...
    a folder that may be there already     with updated_folder(path) as folder: ...
    a folder that one process works in     with locked(path): ...

Two processes that write one folder do not mix their files: the second one is refused.
"""

import ctypes
import errno
import glob
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from modernbert.errors import InUseError, ModernBertError, RunError
from modernbert.hashes import HASHES_FILE, Hashes, as_bytes, hash_folder, read_hashes

_fcntl: ModuleType | None
try:
    import fcntl as _fcntl
except ImportError:  # Windows, which can neither lock nor open a folder
    _fcntl = None

TEMPORARY_PREFIX = ".partial-"
PATIENCE_SECONDS = 5.0
_UPDATE = f"{TEMPORARY_PREFIX}update"
_RETRY_SECONDS = 0.05

_HERE = -100  # AT_FDCWD: a path that is not absolute begins at the current folder
_EXCHANGE = 2  # RENAME_EXCHANGE on Linux, RENAME_SWAP on macOS
_NO_LOCKS = errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP


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
    _remove_abandoned(path)
    try:
        with temporary.open("wb") as file:
            if _fcntl is not None:
                _lock(file.fileno(), _fcntl.LOCK_EX)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _remove_abandoned(path: Path) -> None:
    """Remove what killed writers of a file left beside it; living ones hold theirs."""
    if _fcntl is None:  # nobody can tell the living from the killed
        return
    for leftover in path.parent.glob(f"{TEMPORARY_PREFIX}*-{glob.escape(path.name)}"):
        with suppress(OSError), leftover.open("rb") as file:
            _lock(file.fileno(), _fcntl.LOCK_EX)
            leftover.unlink()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill, which becomes the new folder `path` when the block ends well.

    Its files are made durable before the rename, so a folder under its final name is complete.

    Raises:
        InUseError: Another process is filling it.
        FileExistsError: It has come to exist meanwhile.
    """
    with _filled_folder(path.with_name(TEMPORARY_PREFIX + path.name)) as temporary:
        yield temporary
        sync_tree(temporary)
        try:
            temporary.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise FileExistsError(f"{path}: another process has made it meanwhile") from None
    sync(path.parent)


@contextmanager
def updated_folder(path: Path, *, error: type[ModernBertError] | None = None) -> Iterator[Path]:
    """Give a folder to fill, whose files go into `path` when the block ends well.

    Where `path` is new it appears at once and whole. Where it exists, its other files stay, and
    all that are replaced are so at one moment: a folder with the new files and links to the others
    changes places with it. Where the system cannot do that, files are replaced one by one, each
    the whole old one or the whole new one. The hashes of all that was ever written so are kept in
    the folder's `hashes.json`. Within a folder that is being filled, files are written in place.

    Args:
        path: The folder.
        error: The class to raise for an `OSError`, such as that of a full disk; none to leave it.
            Within a folder that is being filled it is left to whoever fills that.
    """
    try:
        with _updated_folder(path) as folder:
            yield folder
    except OSError as failure:
        if error is None or _is_being_filled(path):
            raise
        raise error(f"{path}: cannot be written: {failure}") from None


@contextmanager
def _updated_folder(path: Path) -> Iterator[Path]:
    if _is_being_filled(path):
        path.mkdir(parents=True, exist_ok=True)
        yield path
        return
    if not path.exists():
        with new_folder(path) as temporary:
            yield temporary
            _write_hashes(temporary, path)
        return
    with _filled_folder(path / _UPDATE) as temporary:
        yield temporary
        _write_hashes(temporary, path)
        sync_tree(temporary)
        if not _replace_at_once(path.resolve(), temporary):
            _replace_one_by_one(path, temporary)


def _is_being_filled(path: Path) -> bool:
    return any(part.startswith(TEMPORARY_PREFIX) for part in path.parts)


def _write_hashes(update: Path, path: Path) -> None:
    """Write the hashes of new files into their folder, with those of the files that stay."""
    earlier: Hashes = {}
    if (path / HASHES_FILE).exists():
        with suppress(ModernBertError):  # a damaged file of hashes is no reason to lose a model
            earlier = read_hashes(path / HASHES_FILE)
    write_whole(update / HASHES_FILE, as_bytes({**earlier, **hash_folder(update)}))


def _replace_at_once(path: Path, update: Path) -> bool:
    """Whether the files of `update` could take their places in `path` at one moment."""
    if _fcntl is None or Path.cwd().is_relative_to(path):
        return False  # whoever stands in the folder would be left in a deleted one
    try:
        with _filled_folder(path.with_name(TEMPORARY_PREFIX + path.name)) as beside:
            _link(update, beside)
            _link(path, beside)
            shutil.copystat(path, beside)
            sync_tree(beside)
            exchanged = _exchange(beside, path)
            sync(path.parent)
        return exchanged
    except OSError:
        return False  # no links here, no right to write beside it, or a mount point


def _link(source: Path, folder: Path) -> None:
    """Give all that is in `source`, and not in `folder` yet, a second place there."""
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source)
        place = folder / inner
        if inner.parts[0] == _UPDATE or place.exists():
            continue
        if path.is_dir() and not path.is_symlink():
            place.mkdir()
            shutil.copystat(path, place)
        else:
            os.link(path, place, follow_symlinks=False)


def _exchange(first: Path, second: Path) -> bool:
    """Whether two folders could change places at one moment, as Linux and macOS can do it."""
    names = os.fsencode(first), os.fsencode(second)
    system = ctypes.CDLL(None, use_errno=True)
    if hasattr(system, "renameat2"):
        return bool(system.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0)
    if hasattr(system, "renamex_np"):
        return bool(system.renamex_np(*names, _EXCHANGE) == 0)
    return False


def _replace_one_by_one(path: Path, update: Path) -> None:
    for file in sorted(update.rglob("*")):
        place = path / file.relative_to(update)
        if file.is_dir():
            place.mkdir(exist_ok=True)
        else:
            file.replace(place)
            sync(place.parent)


@contextmanager
def locked(
    folder: Path, *, shared: bool = False, patience_seconds: float | None = None
) -> Iterator[None]:
    """Hold a folder for this process; a process that dies lets go of it.

    Args:
        folder: Exists already.
        shared: Hold it together with other processes that share it.
        patience_seconds: How long to wait for another process; `PATIENCE_SECONDS` when None.

    Raises:
        InUseError: Another process holds it, or has moved it away meanwhile.
        FileNotFoundError: It is not there.
    """
    if _fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        kind = _fcntl.LOCK_SH if shared else _fcntl.LOCK_EX
        lock_patiently(descriptor, kind, patience_seconds)
        if not _is_still_there(folder, descriptor):
            raise InUseError(f"{folder}: another process has replaced it at this moment")
        yield
    except BlockingIOError:
        raise InUseError(
            f"{folder}: another process is at work in it; wait until it ends"
        ) from None
    finally:
        os.close(descriptor)


def _is_still_there(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


def lock_patiently(descriptor: int, kind: int, patience_seconds: float | None = None) -> None:
    """Lock an open file or folder.

    A worker may outlive its killed parent for a moment, and whoever runs the same command again at
    once would meet it.

    Args:
        descriptor: Of the file.
        kind: `fcntl.LOCK_EX` or `fcntl.LOCK_SH`.
        patience_seconds: As in `locked`.

    Raises:
        BlockingIOError: Another process holds it still.
    """
    patience = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
    give_up = time.monotonic() + patience
    while True:
        try:
            return _lock(descriptor, kind)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                raise
        time.sleep(_RETRY_SECONDS)


def _lock(descriptor: int, kind: int) -> None:
    """Lock an open folder, where its file system knows locks."""
    try:
        locks().flock(descriptor, kind | locks().LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def locks() -> ModuleType:
    """Return the locks of files that `fcntl` gives, for those who cannot do without them.

    Raises:
        RunError: This system has none.
    """
    if _fcntl is None:
        raise RunError(
            "training locks its files, which this system cannot do; on Windows, run it in WSL"
        )
    return _fcntl


def remove_folder(path: Path) -> None:
    """Delete a folder; a kill halfway leaves a leftover, never half a folder under its name."""
    temporary = path.with_name(TEMPORARY_PREFIX + path.name)
    shutil.rmtree(temporary, ignore_errors=True)
    path.rename(temporary)
    shutil.rmtree(temporary)


def finish_removal(path: Path) -> None:
    """Go on with a `remove_folder` that a kill has interrupted; otherwise do nothing."""
    shutil.rmtree(path.with_name(TEMPORARY_PREFIX + path.name), ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Clear what killed writers left in `folder`; nobody may be writing there."""
    for leftover in folder.glob(TEMPORARY_PREFIX + "*"):
        _remove(leftover)


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable where the system can do that."""
    if _fcntl is None:
        return
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
    """An empty folder that is gone at the end: moved by then, or not wanted.

    Raises:
        InUseError: Another process is filling it.
    """
    temporary.mkdir(parents=True, exist_ok=True)
    with locked(temporary):
        for leftover in temporary.iterdir():
            _remove(leftover)
        identity = temporary.stat()
        try:
            yield temporary
        finally:
            # Under this name there may be another process's folder by now, or the one that
            # changed places with this one, which is nobody's.
            if not temporary.exists() or not _is_held_by_another(temporary, identity):
                shutil.rmtree(temporary, ignore_errors=True)


def _is_held_by_another(folder: Path, identity: os.stat_result) -> bool:
    """Whether a folder is not the one of that identity, and some process holds it."""
    if os.path.samestat(folder.stat(), identity):
        return False
    try:
        with locked(folder, patience_seconds=0):
            return False
    except (InUseError, FileNotFoundError):
        return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
