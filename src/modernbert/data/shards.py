"""Token shards: whole documents as token ids, in files that are mapped into memory.

A shard folder holds for each shard a tokens file (the ids of its documents one after another,
little-endian uint16, or uint32 when the vocabulary needs it) and an offsets file (num_documents
+ 1 little-endian uint64, in tokens), and one `manifest.json` with every count and hash. The
manifest is written last: a folder without it is unfinished. Documents are kept whole and without
special tokens, so that the same shards serve every sequence length.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from modernbert.data.remote_files import is_remote, read_remote
from modernbert.data.shard_cache import CacheSettings, cache_of
from modernbert.data.shard_files import (
    LITTLE_ENDIAN,
    MANIFEST,
    FileRecord,
    ShardRecord,
    ShardWriter,
    Source,
    SpecialTokens,
    parse_manifest,
    read_manifest,
)
from modernbert.errors import ShardError

_verified: set[tuple[str, int, int, str]] = set()


class ShardFiles(Protocol):
    """Where the files of a folder are.

    They can be sent to another process, which maps the files itself.
    """

    def name_of(self, file: FileRecord) -> str:
        """Return what to call a file in a message."""

    def map(self, file: FileRecord, dtype: str) -> np.ndarray:
        """Return a file's content, mapped; its hash is checked at the first touch in this process.

        Raises:
            ShardError: The bytes are not those that were written, or cannot be had.
        """

    def verify(self, file: FileRecord) -> None:
        """Hash a file, whether it was hashed before or not.

        Raises:
            ShardError: The bytes are not those that were written, or cannot be had.
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
            ShardError: Naming it.
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
        """Return the content of the manifest.

        Raises:
            ShardError: It cannot be had.
        """
        return read_remote(f"{self.url}/{MANIFEST}", self.settings.fetching)


__all__ = ["Shard", "ShardFolder", "ShardWriter", "Source", "SpecialTokens"]

# Offsets that were looked through in this process, by their hashes.
_ascending: set[str] = set()


@dataclass(frozen=True)
class Shard:
    """One shard; each of its files is mapped and its hash checked at the first touch."""

    files: ShardFiles
    dtype: str
    record: ShardRecord

    @property
    def num_documents(self) -> int:
        """The number of whole documents."""
        return self.record.num_documents

    @property
    def num_tokens(self) -> int:
        """The number of tokens of all documents together."""
        return self.record.num_tokens

    @property
    def offsets(self) -> np.ndarray:
        """(num_documents + 1,) uint64. Where each document begins in `tokens`, and the end.

        Raises:
            ShardError: The file's bytes are not those that were written, or do not ascend.
        """
        file = self.record.offsets
        offsets = self.files.map(file, "<u8")
        if file.sha256 not in _ascending:
            ascend = bool((offsets[1:] > offsets[:-1]).all())
            if not (ascend and offsets[0] == 0 and offsets[-1] == self.num_tokens):
                raise ShardError(
                    f"{self.files.name_of(file)}: offsets do not ascend from 0 to "
                    f"{self.num_tokens}; prepare the corpus again"
                )
            _ascending.add(file.sha256)
        return offsets

    @property
    def tokens(self) -> np.ndarray:
        """(num_tokens,) uint16 or uint32. The ids of all documents, one after another.

        Raises:
            ShardError: The file's bytes are not those that were written.
        """
        return self.files.map(self.record.tokens, LITTLE_ENDIAN[self.dtype])


@dataclass(frozen=True)
class ShardFolder:
    """An opened folder of token shards.

    Attributes:
        path: Of the folder, or its address in object storage.
        shards: In the order in which they were written.
        fingerprint: Sha256 of the manifest, and so of everything in the folder.
    """

    path: Path | str
    shards: tuple[Shard, ...]
    num_documents: int
    num_tokens: int
    vocab_size: int
    tokenizer_fingerprint: str
    special_token_ids: SpecialTokens
    sources: tuple[Source, ...]
    fingerprint: str

    @classmethod
    def open(cls, path: Path | str, cache: CacheSettings | None = None) -> Self:
        """Read the manifest; the tokens are not touched.

        Of a local folder the size of every file is checked. Files of a remote one are fetched one
        by one when they are first used, and checked then.

        Args:
            path: A folder, or an address that fsspec knows, such as s3://bucket/folder.
            cache: Where files of a remote folder are kept.

        Raises:
            ShardError: No finished shard folder, another format, or a file that is missing,
                truncated or too long.
        """
        files: ShardFiles
        if is_remote(path):
            path = str(path).rstrip("/")
            files = RemoteFiles(path, cache or CacheSettings())
            manifest, fingerprint = parse_manifest(files.read_manifest(), f"{path}/{MANIFEST}")
        else:
            path = Path(path)
            files = LocalFiles(path)
            manifest, fingerprint = read_manifest(path)
            for record in manifest.shards:
                files.check_size(record.tokens)
                files.check_size(record.offsets)
        return cls(
            path=path,
            shards=tuple(Shard(files, manifest.dtype, record) for record in manifest.shards),
            num_documents=manifest.num_documents,
            num_tokens=manifest.num_tokens,
            vocab_size=manifest.vocab_size,
            tokenizer_fingerprint=manifest.tokenizer_fingerprint,
            special_token_ids=manifest.special_token_ids,
            sources=manifest.sources,
            fingerprint=fingerprint,
        )

    def verify(self) -> None:
        """Read every byte: all hashes, the order of the offsets and the range of the ids.

        Raises:
            ShardError: Naming the first file that is not as it was written.
        """
        for shard in self.shards:
            for file in (shard.record.offsets, shard.record.tokens):
                shard.files.verify(file)
            _ = shard.offsets
            if (highest := int(shard.tokens.max())) >= self.vocab_size:
                name = shard.files.name_of(shard.record.tokens)
                raise ShardError(
                    f"{name}: token id {highest} is outside the vocabulary of {self.vocab_size}; "
                    "prepare the corpus again"
                )
