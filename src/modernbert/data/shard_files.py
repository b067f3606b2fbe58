"""The files of a shard folder, on this machine or in object storage, behind one interface."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from modernbert.data.remote_files import read_remote
from modernbert.data.shard_cache import CacheSettings, cache_of
from modernbert.data.shard_manifest import MANIFEST, FileRecord
from modernbert.errors import ShardError

_verified: set[tuple[str, int, int, str]] = set()


class ShardFiles(Protocol):
    """Where the files of a folder are.

    They can be sent to another process, which maps the files itself.
    """

    def name_of(self, file: FileRecord) -> str:
        """What to call a file in a message."""

    def map(self, file: FileRecord, dtype: str) -> np.ndarray:
        """A file's content, mapped; its hash is checked at the first touch in this process.

        Raises:
            ShardError: the bytes are not those that were written, or cannot be had.
        """

    def verify(self, file: FileRecord) -> None:
        """Hash a file, whether it was hashed before or not.

        Raises:
            ShardError: the bytes are not those that were written, or cannot be had.
        """


@dataclass(frozen=True)
class LocalFiles:
    """Files in a folder of this machine."""

    folder: Path
    _maps: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def name_of(self, file: FileRecord) -> str:
        return str(self.folder / file.name)

    def map(self, file: FileRecord, dtype: str) -> np.ndarray:
        mapped = self._maps.get(file.name)
        if mapped is None:
            self._verify_once(file)
            mapped = np.memmap(self.folder / file.name, dtype=dtype, mode="r")
            self._maps[file.name] = mapped
        return mapped

    def verify(self, file: FileRecord) -> None:
        self.check_size(file)
        identity = self._identity(file)
        with (self.folder / file.name).open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != file.sha256:
            raise ShardError(
                f"{self.name_of(file)}: its bytes have changed since they were written "
                "(sha256 differs); copy it again or prepare the corpus again"
            )
        _verified.add(identity)

    def check_size(self, file: FileRecord) -> None:
        """Refuse a file that is missing, truncated or too long.

        Raises:
            ShardError: naming it.
        """
        path = self.folder / file.name
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise ShardError(
                f"{path}: missing, though {MANIFEST} lists it; copy it again"
            ) from None
        if size != file.num_bytes:
            change = "truncated" if size < file.num_bytes else "too long"
            raise ShardError(
                f"{path}: {change}: got {size} bytes, expected {file.num_bytes}; copy it again"
            )

    def _verify_once(self, file: FileRecord) -> None:
        """Hash a file at its first touch in this process, and again only if it has changed."""
        self.check_size(file)
        if self._identity(file) not in _verified:
            self.verify(file)

    def _identity(self, file: FileRecord) -> tuple[str, int, int, str]:
        path = (self.folder / file.name).resolve()
        status = path.stat()
        return str(path), status.st_ino, status.st_mtime_ns, file.sha256

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_maps": {}}


@dataclass(frozen=True)
class RemoteFiles:
    """Files in object storage, by the address of their folder; they come through a cache."""

    url: str
    settings: CacheSettings

    def name_of(self, file: FileRecord) -> str:
        return f"{self.url}/{file.name}"

    def map(self, file: FileRecord, dtype: str) -> np.ndarray:
        return cache_of(self.settings).map(self.name_of(file), file, dtype)

    def verify(self, file: FileRecord) -> None:
        self.map(file, "u1")  # it was hashed when it came

    def read_manifest(self) -> bytes:
        """The content of the manifest.

        Raises:
            ShardError: it cannot be had.
        """
        return read_remote(f"{self.url}/{MANIFEST}", self.settings.fetching)
