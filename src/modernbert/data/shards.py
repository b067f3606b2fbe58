"""Token shards: whole documents as token ids, in files that are mapped into memory.

A shard folder holds for each shard a tokens file (the ids of its documents one after another,
little-endian uint16, or uint32 when the vocabulary needs it) and an offsets file (num_documents
+ 1 little-endian uint64, in tokens), and one `manifest.json` with every count and hash. The
manifest is written last: a folder without it is unfinished. Documents are kept whole and without
special tokens, so that the same shards serve every sequence length.
"""

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from modernbert.data.shard_manifest import (
    LITTLE_ENDIAN,
    MANIFEST,
    FileRecord,
    ShardRecord,
    Source,
    SpecialTokens,
    read_manifest,
)
from modernbert.data.shard_writer import ShardWriter
from modernbert.errors import ShardError

__all__ = ["Shard", "ShardFolder", "ShardWriter", "Source", "SpecialTokens"]

_verified: set[tuple[str, int, int, str]] = set()


@dataclass(frozen=True)
class Shard:
    """One shard; each of its files is mapped and its hash checked at the first touch."""

    folder: Path
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

    @cached_property
    def offsets(self) -> np.ndarray:
        """(num_documents + 1,) uint64. Where each document begins in `tokens`, and the end.

        Raises:
            ShardError: the file's bytes are not those that were written, or do not ascend.
        """
        offsets = self._map(self.record.offsets, "<u8")
        ascend = bool((offsets[1:] > offsets[:-1]).all())
        if not (ascend and offsets[0] == 0 and offsets[-1] == self.num_tokens):
            raise ShardError(
                f"{self.folder / self.record.offsets.name}: offsets do not ascend from 0 to "
                f"{self.num_tokens}; prepare the corpus again"
            )
        return offsets

    @cached_property
    def tokens(self) -> np.ndarray:
        """(num_tokens,) uint16 or uint32. The ids of all documents, one after another.

        Raises:
            ShardError: the file's bytes are not those that were written.
        """
        return self._map(self.record.tokens, LITTLE_ENDIAN[self.dtype])

    def _map(self, file: FileRecord, dtype: str) -> np.ndarray:
        _verify_once(self.folder, file)
        return np.memmap(self.folder / file.name, dtype=dtype, mode="r")

    def __getstate__(self) -> dict[str, Any]:
        # Another process maps the files itself instead of receiving a copy of them.
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class ShardFolder:
    """An opened folder of token shards.

    shards: in the order in which they were written.
    fingerprint: sha256 of the manifest, and so of everything in the folder.
    """

    path: Path
    shards: tuple[Shard, ...]
    num_documents: int
    num_tokens: int
    vocab_size: int
    tokenizer_fingerprint: str
    special_token_ids: SpecialTokens
    sources: tuple[Source, ...]
    fingerprint: str

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Read the manifest and check the size of every file; the tokens are not touched.

        Raises:
            ShardError: no finished shard folder, another format, or a file that is missing,
                truncated or too long.
        """
        path = Path(path)
        manifest, fingerprint = read_manifest(path)
        for record in manifest.shards:
            _check_size(path, record.tokens)
            _check_size(path, record.offsets)
        return cls(
            path=path,
            shards=tuple(Shard(path, manifest.dtype, record) for record in manifest.shards),
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
            ShardError: naming the first file that is not as it was written.
        """
        for shard in self.shards:
            for file in (shard.record.offsets, shard.record.tokens):
                _verify(self.path, file)
            _ = shard.offsets
            if (highest := int(shard.tokens.max())) >= self.vocab_size:
                raise ShardError(
                    f"{self.path / shard.record.tokens.name}: token id {highest} is outside the "
                    f"vocabulary of {self.vocab_size}; prepare the corpus again"
                )


def _check_size(folder: Path, file: FileRecord) -> None:
    path = folder / file.name
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise ShardError(f"{path}: missing, though {MANIFEST} lists it; copy it again") from None
    if size != file.num_bytes:
        change = "truncated" if size < file.num_bytes else "too long"
        raise ShardError(
            f"{path}: {change}: got {size} bytes, expected {file.num_bytes}; copy it again"
        )


def _verify_once(folder: Path, file: FileRecord) -> None:
    """Hash a file at its first touch in this process, and again only if it has changed."""
    _check_size(folder, file)
    if _identity(folder, file) not in _verified:
        _verify(folder, file)


def _verify(folder: Path, file: FileRecord) -> None:
    _check_size(folder, file)
    identity = _identity(folder, file)
    with (folder / file.name).open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != file.sha256:
        raise ShardError(
            f"{folder / file.name}: its bytes have changed since they were written "
            "(sha256 differs); copy it again or prepare the corpus again"
        )
    _verified.add(identity)


def _identity(folder: Path, file: FileRecord) -> tuple[str, int, int, str]:
    path = (folder / file.name).resolve()
    status = path.stat()
    return str(path), status.st_ino, status.st_mtime_ns, file.sha256
