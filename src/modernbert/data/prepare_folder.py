"""The output folder of `prepare`: which call it belongs to, and what is finished in it."""

import errno
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modernbert.data.records import Skipped
from modernbert.data.shard_files import MANIFEST
from modernbert.errors import InUseError, RunError
from modernbert.files import PATIENCE_SECONDS, TEMPORARY_PREFIX, locked, write_whole
from modernbert.json_files import read_object, read_settings

Identity = Mapping[str, Any]

_IDENTITY = "prepare.json"
_SKIPPED = "skipped.json"
_HELD_OUT = "held-out"
_UNFINISHED = "unfinished"
_RETRY_SECONDS = 0.05
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class PrepareFolder:
    """An output folder that belongs to this call of `prepare`."""

    path: Path

    @property
    def held_out(self) -> Path:
        return self.path / _HELD_OUT

    @property
    def unfinished(self) -> Path:
        """The folder of what is needed only until the shards are finished."""
        return self.path / _UNFINISHED

    @property
    def is_finished(self) -> bool:
        """Whether the shards are complete: the manifest is written last."""
        return (self.path / MANIFEST).exists()

    def remove_unfinished(self) -> None:
        """Delete what is needed only until the shards are finished."""
        shutil.rmtree(self.unfinished, ignore_errors=True)

    def remove_held_out(self) -> None:
        """Delete what a stopped call left of the held-out shards."""
        shutil.rmtree(self.held_out, ignore_errors=True)

    def forget(self) -> None:
        """Release the folder for any call: it contains nothing to continue from."""
        self.remove_unfinished()
        (self.path / _IDENTITY).unlink(missing_ok=True)

    def write_skipped(self, skipped: Skipped) -> None:
        """Write the account of skipped records beside the shards."""
        write_whole(self.path / _SKIPPED, _as_json(asdict(skipped)))

    def read_skipped(self) -> Skipped:
        """Read the account of records that were skipped when the shards were made."""
        return read_settings(Skipped, self.path / _SKIPPED, error=RunError)


@contextmanager
def claim_folder(path: Path, identity: Identity) -> Iterator[PrepareFolder]:
    """Claim the folder for one call: a new one, or what an earlier call with this identity left.

    Args:
        path: The output folder of `prepare`.
        identity: Everything that the shards depend on, as JSON values; its `inputs` are paths, its
            `files` have the path, the size and the time of each file.

    Raises:
        RunError: It belongs to something else, is in use, lies within an input, or cannot be
            written, because the disk is full for instance.
    """
    with _explained(path):
        _check_not_within(path, identity["inputs"])
        _make_folder(path)
        with locked(path):
            _check_identity(path, identity)
            yield PrepareFolder(path)


@contextmanager
def share_folder(
    path: Path, identity: Identity, *, task: int, num_tasks: int
) -> Iterator[PrepareFolder]:
    """Claim the part of one task in a folder in which several tasks work at the same time.

    Raises:
        RunError: As `claim_folder`, or this task is running already.
    """
    with _explained(path):
        _check_not_within(path, identity["inputs"])
        _make_folder(path)
        _begin_together(path, identity)
        with locked(path, shared=True):
            _check_identity(path, identity)
            folder = PrepareFolder(path)
            folder.unfinished.mkdir(exist_ok=True)
            own = folder.unfinished / f"task-{task}-of-{num_tasks}"
            own.mkdir(exist_ok=True)
            with locked(own):
                yield folder


def _begin_together(path: Path, identity: Identity) -> None:
    """Claim the folder for all tasks, which may do so at the same moment."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not (path / _IDENTITY).exists():
        try:
            with locked(path, patience_seconds=0):  # another may have begun, and hold it for long
                _check_identity(path, identity)
        except InUseError:
            if time.monotonic() >= give_up:
                raise
            time.sleep(_RETRY_SECONDS)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn errors of the system into errors for users, with what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_ALLOWED:
            raise RunError(f"{path}: cannot be written: {error}; choose another output") from None
        if error.errno not in _DISK_IS_FULL:
            raise
        raise RunError(
            f"{path}: the disk is full ({error.strerror}); nothing is lost: make room and run "
            "the same command again"
        ) from None


def _check_not_within(path: Path, inputs: Sequence[str]) -> None:
    for given in inputs:
        if path.resolve().is_relative_to(Path(given).resolve()):
            raise RunError(f"{path}: lies within the input {given}; choose another output")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise RunError(f"{path}: not a folder; choose another output") from None


def _check_identity(path: Path, identity: Identity) -> None:
    file = path / _IDENTITY
    if not file.exists():
        _check_empty(path)
        write_whole(file, _as_json(identity))
        return
    try:
        earlier = read_object(file, RunError)
    except RunError:
        raise RunError(f"{file}: not readable; choose another output") from None
    difference = _difference(earlier, identity)
    if difference:
        raise RunError(
            f"{path}: contains the work of another command: {difference}; choose another "
            "output, or "
            "delete it"
        )


def _as_json(value: Mapping[str, Any]) -> bytes:
    """Return JSON in ASCII, since the name of a file may not be UTF-8."""
    return json.dumps(value, indent=1).encode() + b"\n"


def _check_empty(path: Path) -> None:
    names = sorted(entry.name for entry in path.iterdir())
    others = [name for name in names if not name.startswith(TEMPORARY_PREFIX)]
    if others:
        raise RunError(f"{path}: not empty (contains {others[0]}); choose another output")


def _difference(earlier: Identity, identity: Identity) -> str:
    """Describe the first difference; empty if there is none."""
    if earlier.keys() != identity.keys():
        return "it is of another version of this program"
    for key, value in identity.items():
        before = earlier[key]
        if before == value:
            continue
        if key == "files":
            return _changed_file(before, value)
        if isinstance(value, dict):
            changed = next(name for name in value if before.get(name) != value[name])
            return f"{changed} was {before.get(changed)!r}, now {value[changed]!r}"
        return f"{key} was {before!r}, now {value!r}"
    return ""


def _changed_file(before: Sequence[Sequence[Any]], now: Sequence[Sequence[Any]]) -> str:
    earlier = {path: facts for path, *facts in before}
    for path, *facts in now:
        if path not in earlier:
            return f"{path} is new since then"
        if earlier.pop(path) != facts:
            return f"{path} has changed since then"
    missing = next(iter(earlier), None)
    return f"{missing} is missing now" if missing else "the files come in another order"
