"""A run folder belongs to one run and, while that trains, to one process."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modernbert.errors import InUseError, RunError
from modernbert.files import lock_patiently, locks, write_whole
from modernbert.json_files import read_object

RUN_FILE = "run.json"
LOCK_FILE = "run.lock"

# What runs write beside their models; a config.json says that the folder is a model's.
_WRITTEN = ("config.json", "report.html", "results.json", "metrics.jsonl", "recipe.toml", "runs")

_HASH = re.compile("[0-9a-f]{64}")
# What identities hold the sha256 of.
_CONTENTS = {"examples": "the training, dev or test rows", "model": "the weights of the model"}


def plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity as JSON gives it back, so that tuples equal the lists they become."""
    result: dict[str, Any] = json.loads(json.dumps(identity))
    return result


def first_difference(stored: Any, given: Any, key: str = "") -> str | None:
    """Return the first key at which two identities differ, with both values; None if equal.

    >>> first_difference({"seed": 1, "model": {"layers": 6}}, {"seed": 1, "model": {"layers": 8}})
    'model.layers is 6 there and 8 here'
    """
    if stored == given:
        return None
    if not (isinstance(stored, Mapping) and isinstance(given, Mapping)):
        if _is_hash(stored) and _is_hash(given):
            return f"{_CONTENTS.get(key, key)} changed since the run began"
        return f"{key} is {_shown(stored)} there and {_shown(given)} here"
    for name in [*given, *(name for name in stored if name not in given)]:
        inner = f"{key}.{name}" if key else name
        if difference := first_difference(stored.get(name), given.get(name), inner):
            return difference
    return None


def require_free(run_folder: Path, *models: Path) -> None:
    """Refuse a folder that no run has claimed and that has files which a run would write.

    Args:
        run_folder: The folder of the run.
        models: Where it writes models.

    Raises:
        RunError: One of the files is there.
    """
    if (run_folder / RUN_FILE).exists():
        return
    for path in (*models, *(run_folder / name for name in _WRITTEN)):
        if path.exists():
            raise RunError(f"{path}: exists and does not belong to a run; choose another output")


def claim(run_folder: Path, identity: Mapping[str, Any]) -> None:
    """Make the folder this run's on its first start; afterwards check that it still is.

    Raises:
        RunError: The folder is another run's, or its `run.json` cannot be read or written.
    """
    path = run_folder / RUN_FILE
    if not path.exists():
        try:
            write_whole(path, json.dumps({"identity": identity}, indent=1).encode() + b"\n")
        except OSError as error:
            raise RunError(f"{path}: could not be written: {error}") from None
        return
    content = read_object(path, RunError)
    if (stored := content.get("identity")) is None:
        raise RunError(f"{path}: not a run's identity: has no key 'identity'")
    if difference := first_difference(stored, identity):
        raise RunError(
            f"{run_folder}: belongs to another recipe: {difference}; "
            "choose another run folder, or use the recipe of this one"
        )


@contextmanager
def locked(run_folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock goes with the process, however it ends.

    Raises:
        RunError: Another process is training there, or the folder cannot be made.
    """
    descriptor = _open_lock(run_folder)
    try:
        _lock(descriptor, run_folder)
        yield
    finally:
        os.close(descriptor)


def _open_lock(run_folder: Path) -> int:
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
        return os.open(run_folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except FileExistsError:
        raise RunError(f"{run_folder}: is a file; choose a folder as output") from None
    except OSError as error:
        raise RunError(f"{run_folder}: cannot be used as a run folder: {error}") from None


def _lock(descriptor: int, run_folder: Path) -> None:
    try:
        lock_patiently(descriptor, locks().LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
        raise InUseError(
            f"{run_folder}: another process (id {holder}) is training there; "
            "wait until it ends, or stop it"
        ) from None
    except OSError as error:
        raise RunError(f"{run_folder}: cannot be locked: {error}") from None


def _is_hash(value: Any) -> bool:
    """Whether a value stands for the contents of files, and tells a person nothing."""
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value)
