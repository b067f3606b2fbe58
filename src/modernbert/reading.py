"""Paths as users write them, and files of strangers that are read as a whole."""

import errno
import os
import stat
from pathlib import Path

from modernbert.errors import InputError

# Windows has no pipes in folders to wait for, but changes line ends unless it is told not to.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_MAX_BYTES = 1 << 28  # the largest tokenizers have a twentieth
_POINTER = b"version https://git-lfs.github.com/spec/"


def is_pointer(content: bytes) -> bool:
    """Return whether a file is a pointer that Git LFS leaves in the place of a large file."""
    return content.startswith(_POINTER)


POINTER_REMEDY = "a pointer of Git LFS in the place of the file; run `git lfs pull`"


def read_regular(path: Path, *, max_bytes: int = _MAX_BYTES) -> bytes:
    """Read a file that is read as a whole; a pipe or a device would be waited for without an end.

    Raises:
        OSError: It cannot be read, is not a regular file, or is larger than `max_bytes`.
    """
    descriptor = os.open(path, _FLAGS)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        if status.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"is larger than {max_bytes:,} bytes", str(path))
        return file.read()


def read_text(path: Path) -> str:
    """Read a text file that a user names, which may be a pipe.

    Raises:
        InputError: It cannot be read, or is no text in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        at = f"{error.reason} at byte {error.start}"
        raise InputError(f"{path}: is no text in UTF-8 ({at}); convert it first") from None


def cache_folder(name: str) -> Path:
    """Return the folder of what can be made or fetched again, in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "modernbert" / name


def user_path(path: Path | str) -> Path:
    """Return the path that a user means, `~` being a home folder.

    Raises:
        InputError: No path, one that the system cannot have, or the home of a user whom it does not
            know.
    """
    if path == "" or not isinstance(path, str | Path):
        raise InputError(f"got {path!r}, expected the path of a file or folder")
    try:
        expanded = Path(path).expanduser()
        expanded.exists()
    except RuntimeError:
        raise InputError(f"{path}: there is no such user") from None
    except OSError as error:
        raise InputError(f"{str(path)[:60]}: cannot be a path: {error.strerror}") from None
    return expanded
