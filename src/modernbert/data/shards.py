"""Token shards: whole documents as token ids, in files that are mapped into memory.

A shard folder holds for each shard a tokens file (the ids of its documents one after another,
little-endian uint16, or uint32 when the vocabulary needs it) and an offsets file (num_documents
+ 1 little-endian uint64, in tokens), and one `manifest.json` with every count and hash. The
manifest is written last: a folder without it is unfinished. Documents are kept whole and without
special tokens, so that the same shards serve every sequence length.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import numpy as np

from modernbert.data.durable import sync_folder, write_whole
from modernbert.errors import InputError, SettingsError, ShardError
from modernbert.settings import parse, to_mapping

FORMAT = "modernbert token shards"
VERSION = 1
DEFAULT_SHARD_TOKENS = 250_000_000
MANIFEST = "manifest.json"

_FLUSH_TOKENS = 1 << 20
_verified: set[tuple[str, int, int, str]] = set()


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """The ids that packing and masking need; documents in shards hold none of them."""

    cls: int
    sep: int
    pad: int
    mask: int
    unk: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """What one input gave to a shard folder."""

    name: str
    num_documents: int
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class _FileRecord:
    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class _ShardRecord:
    num_documents: int
    num_tokens: int
    tokens: _FileRecord
    offsets: _FileRecord


@dataclass(frozen=True, kw_only=True)
class _Manifest:
    format: str
    version: int
    dtype: Literal["uint16", "uint32"]
    vocab_size: int
    tokenizer_fingerprint: str
    special_token_ids: SpecialTokens
    num_documents: int
    num_tokens: int
    shards: tuple[_ShardRecord, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Shard:
    """One shard; each of its files is mapped and its hash checked at the first touch."""

    folder: Path
    dtype: str
    record: _ShardRecord

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
        return self._map(self.record.tokens, _LITTLE_ENDIAN[self.dtype])

    def _map(self, file: _FileRecord, dtype: str) -> np.ndarray:
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
        manifest, fingerprint = _read_manifest(path)
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


class ShardWriter:
    """Writes a shard folder document by document, in bounded memory.

    As a context manager it finishes the folder on a clean exit and leaves it unfinished, without
    a manifest, after an exception.

    Raises:
        ShardError: the folder already holds finished shards.
        InputError: a special token id outside the vocabulary.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        vocab_size: int,
        special_token_ids: SpecialTokens,
        tokenizer_fingerprint: str,
        shard_tokens: int = DEFAULT_SHARD_TOKENS,
    ) -> None:
        self.path = Path(path)
        self.num_documents = 0
        self.num_tokens = 0
        self._vocab_size = vocab_size
        self._special_token_ids = special_token_ids
        self._tokenizer_fingerprint = tokenizer_fingerprint
        self._shard_tokens = shard_tokens
        self._dtype = token_dtype(vocab_size)
        self._records: list[_ShardRecord] = []
        self._current: _OpenShard | None = None
        self._finished = False
        check_special_tokens(special_token_ids, vocab_size)
        _clear_unfinished(self.path)

    def add(self, token_ids: Sequence[int] | np.ndarray) -> None:
        """Append one document, given as its (num_tokens,) ids without special tokens.

        Raises:
            InputError: no ids at all, or one outside the vocabulary.
        """
        document = self._checked(token_ids)
        shard = self._current
        if shard and shard.num_tokens + len(document) > self._shard_tokens:
            self._close_shard()
            shard = None
        if shard is None:
            shard = self._current = _OpenShard(self.path, len(self._records))
        shard.add(document)
        self.num_documents += 1
        self.num_tokens += len(document)

    def finish(self, sources: Iterable[Source] = ()) -> None:
        """Close the last shard and write the manifest, which makes the folder complete."""
        self._close_shard()
        manifest = _Manifest(
            format=FORMAT,
            version=VERSION,
            dtype=self._dtype,
            vocab_size=self._vocab_size,
            tokenizer_fingerprint=self._tokenizer_fingerprint,
            special_token_ids=self._special_token_ids,
            num_documents=self.num_documents,
            num_tokens=self.num_tokens,
            shards=tuple(self._records),
            sources=tuple(sources),
        )
        text = json.dumps(to_mapping(manifest), indent=1, ensure_ascii=False)
        write_whole(self.path / MANIFEST, text.encode() + b"\n")
        self._finished = True

    def abort(self) -> None:
        """Give up: no manifest is written, and the shard that was open is removed."""
        if self._current:
            self._current.discard()
            self._current = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.abort()
        elif not self._finished:
            self.finish()

    def _checked(self, token_ids: Sequence[int] | np.ndarray) -> np.ndarray:
        ids = np.asarray(token_ids)
        if ids.ndim != 1 or len(ids) == 0 or ids.dtype.kind not in "iu":
            raise InputError(
                f"document {self.num_documents}: got {ids.shape} {ids.dtype}, "
                "expected a list of at least one token id"
            )
        lowest, highest = int(ids.min()), int(ids.max())
        if lowest < 0 or highest >= self._vocab_size:
            raise InputError(
                f"document {self.num_documents}: token id {lowest if lowest < 0 else highest} is "
                f"outside the vocabulary of {self._vocab_size}; use the tokenizer's vocab_size"
            )
        return ids.astype(_LITTLE_ENDIAN[self._dtype])

    def _close_shard(self) -> None:
        if self._current:
            self._records.append(self._current.close())
            self._current = None


class _OpenShard:
    """The shard being written, under partial names until it is closed."""

    def __init__(self, folder: Path, index: int) -> None:
        self.num_tokens = 0
        self._num_documents = 0
        self._tokens = _HashedFile(folder / f"shard-{index:05d}.tokens")
        self._offsets = _HashedFile(folder / f"shard-{index:05d}.offsets")
        self._documents: list[np.ndarray] = []
        self._ends: list[int] = [0]
        self._buffered_tokens = 0

    def add(self, document: np.ndarray) -> None:
        self._documents.append(document)
        self.num_tokens += len(document)
        self._num_documents += 1
        self._ends.append(self.num_tokens)
        self._buffered_tokens += len(document)
        if self._buffered_tokens >= _FLUSH_TOKENS:
            self._flush()

    def close(self) -> _ShardRecord:
        self._flush()
        return _ShardRecord(
            num_documents=self._num_documents,
            num_tokens=self.num_tokens,
            tokens=self._tokens.close(),
            offsets=self._offsets.close(),
        )

    def discard(self) -> None:
        self._tokens.discard()
        self._offsets.discard()

    def _flush(self) -> None:
        if self._documents:
            self._tokens.write(np.concatenate(self._documents).tobytes())
        self._offsets.write(np.array(self._ends, dtype="<u8").tobytes())
        self._documents, self._ends, self._buffered_tokens = [], [], 0


class _HashedFile:
    """A file that is hashed while it is written and gets its name when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._file: BinaryIO = self._partial.open("wb")
        self._hash = hashlib.sha256()
        self._num_bytes = 0

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self._num_bytes += len(content)

    def close(self) -> _FileRecord:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._path)
        sync_folder(self._path.parent)
        return _FileRecord(
            name=self._path.name, num_bytes=self._num_bytes, sha256=self._hash.hexdigest()
        )

    def discard(self) -> None:
        # Unbuffered bytes may find no room at the close either; the file goes in any case.
        with contextlib.suppress(OSError):
            self._file.close()
        self._partial.unlink(missing_ok=True)


_LITTLE_ENDIAN = {"uint16": "<u2", "uint32": "<u4"}


def token_dtype(vocab_size: int) -> Literal["uint16", "uint32"]:
    """The narrower of the two types that holds every id of the vocabulary.

    >>> token_dtype(50_368), token_dtype(65_536), token_dtype(65_537)
    ('uint16', 'uint16', 'uint32')
    """
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def check_special_tokens(special_token_ids: SpecialTokens, vocab_size: int) -> None:
    """Refuse special tokens that the vocabulary does not have.

    Raises:
        InputError: naming the first of them.
    """
    for name, token_id in to_mapping(special_token_ids).items():
        if not 0 <= token_id < vocab_size:
            raise InputError(
                f"special token {name}: got id {token_id}, expected one of the vocabulary's "
                f"{vocab_size}"
            )


def _clear_unfinished(path: Path) -> None:
    """Make the folder, and remove what an earlier, unfinished writer left in it."""
    if (path / MANIFEST).exists():
        raise ShardError(f"{path}: already holds finished shards; choose another folder")
    path.mkdir(parents=True, exist_ok=True)
    for kind in ("tokens", "offsets"):
        for leftover in path.glob(f"shard-*.{kind}*"):
            leftover.unlink()


def _read_manifest(path: Path) -> tuple[_Manifest, str]:
    file = path / MANIFEST
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ShardError(
            f"{path}: no finished shard folder ({MANIFEST} is missing); "
            "make one with `modernbert prepare`"
        ) from None
    try:
        mapping = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{file}: not readable: {error}; prepare the corpus again") from None
    if not isinstance(mapping, dict) or mapping.get("format") != FORMAT:
        raise ShardError(f"{file}: another program's format, expected {FORMAT!r}")
    if mapping.get("version") != VERSION:
        raise ShardError(
            f"{file}: got version {mapping.get('version')!r} of the format, expected {VERSION}; "
            "prepare the corpus again"
        )
    try:
        manifest = parse(_Manifest, mapping, where=str(file))
    except SettingsError as error:
        raise ShardError(str(error)) from None
    _check_manifest(file, manifest)
    return manifest, hashlib.sha256(content).hexdigest()


def _check_manifest(file: Path, manifest: _Manifest) -> None:
    """The counts of a manifest must agree with one another."""
    width = np.dtype(manifest.dtype).itemsize
    for shard in manifest.shards:
        expected = (shard.num_tokens * width, (shard.num_documents + 1) * 8)
        if (shard.tokens.num_bytes, shard.offsets.num_bytes) != expected or not shard.num_tokens:
            raise ShardError(f"{file}: the counts of {shard.tokens.name} contradict its size")
        for record in (shard.tokens, shard.offsets):
            if Path(record.name).name != record.name:
                raise ShardError(f"{file}: {record.name!r} is not a file of this folder")
    documents = sum(shard.num_documents for shard in manifest.shards)
    tokens = sum(shard.num_tokens for shard in manifest.shards)
    if (documents, tokens) != (manifest.num_documents, manifest.num_tokens):
        raise ShardError(f"{file}: the totals contradict the shards; prepare the corpus again")


def _check_size(folder: Path, file: _FileRecord) -> None:
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


def _verify_once(folder: Path, file: _FileRecord) -> None:
    """Hash a file at its first touch in this process, and again only if it has changed."""
    _check_size(folder, file)
    if _identity(folder, file) not in _verified:
        _verify(folder, file)


def _verify(folder: Path, file: _FileRecord) -> None:
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


def _identity(folder: Path, file: _FileRecord) -> tuple[str, int, int, str]:
    path = (folder / file.name).resolve()
    status = path.stat()
    return str(path), status.st_ino, status.st_mtime_ns, file.sha256
