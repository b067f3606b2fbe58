"""Sizes and sha256 of files, kept beside them so that every later change can be found.

Checkpoints, shards and indexes keep them in their manifests. Any other folder that this package
writes, such as a model's, has a file `hashes.json`, and a file of vectors has one of its own.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from modernbert.errors import SettingsError
from modernbert.json_files import read_settings

HASHES_FILE = "hashes.json"


@dataclass(frozen=True, kw_only=True)
class FileHash:
    """The size and the hash of a file when it was written.

    Attributes:
        bytes: The size.
        sha256: The sha256 of its content, in hexadecimal digits.
    """

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileHash":
        """Read a file.

        Raises:
            OSError: It cannot be read.
        """
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(bytes=file.tell(), sha256=digest)


Hashes = Mapping[str, FileHash]
"""By the name of the file, or its path within the folder."""


@dataclass(frozen=True, kw_only=True)
class _HashesFile:
    format: Literal["modernbert hashes 1"] = "modernbert hashes 1"
    files: Mapping[str, FileHash]

    def __post_init__(self) -> None:
        require_inner_paths(self.files)


def hash_folder(folder: Path) -> Hashes:
    """Hash all files of a folder, at any depth, except files of hashes."""
    return {
        path.relative_to(folder).as_posix(): FileHash.of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != HASHES_FILE
    }


def as_bytes(hashes: Hashes) -> bytes:
    """Return the content of a file of hashes."""
    content = asdict(_HashesFile(files=dict(hashes)))
    return json.dumps(content, indent=1).encode() + b"\n"


def read_hashes(path: Path) -> Hashes:
    """Read a file that `write_hashes` wrote.

    Raises:
        ModelFolderError: It cannot be read, or is no file of hashes.
    """
    return read_settings(_HashesFile, path).files


def require_inner_paths(hashes: Hashes) -> None:
    """Refuse hashes of files that are not within their folder.

    Raises:
        SettingsError: There is one; the message names the first.
    """
    for name in hashes:
        if not name or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            raise SettingsError(f"files: {name!r} is not a file within the folder")


def find_size_fault(path: Path, expected: FileHash) -> str | None:
    """Compare a file's size with its hash entry; return what is wrong, or None."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size == expected.bytes:
        return None
    return f"has {size:,} bytes, not the {expected.bytes:,} that were written"


def find_fault(path: Path, expected: FileHash) -> str | None:
    """Read a whole file; return what is wrong with it, or None if it is as it was written."""
    try:
        if fault := find_size_fault(path, expected):
            return fault
        return None if FileHash.of(path) == expected else "differs from its hash"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def find_faults(folder: Path, hashes: Hashes) -> Iterator[str]:
    """Read the files of a folder; return what is wrong with each that has changed."""
    for name, expected in hashes.items():
        if fault := find_fault(folder / name, expected):
            yield f"{folder / name}: {fault}"
