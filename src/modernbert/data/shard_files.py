"""The files of a shard folder: its manifest, which agrees with itself, and writing them."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Self

import numpy as np

from modernbert.data.settings import DEFAULT_SHARD_TOKENS
from modernbert.errors import InputError, SettingsError, ShardError
from modernbert.files import TEMPORARY_PREFIX, remove_leftovers, sync, write_whole
from modernbert.settings import parse, to_mapping

FORMAT = "modernbert token shards"
VERSION = 1
MANIFEST = "manifest.json"

LITTLE_ENDIAN = {"uint16": "<u2", "uint32": "<u4"}


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
class FileRecord:
    """One file of a shard."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """The counts and files of one shard."""

    num_documents: int
    num_tokens: int
    tokens: FileRecord
    offsets: FileRecord


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is known of a shard folder without reading its tokens."""

    format: str
    version: int
    dtype: Literal["uint16", "uint32"]
    vocab_size: int
    tokenizer_fingerprint: str
    special_token_ids: SpecialTokens
    num_documents: int
    num_tokens: int
    shards: tuple[ShardRecord, ...]
    sources: tuple[Source, ...]


def token_dtype(vocab_size: int) -> Literal["uint16", "uint32"]:
    """Return the narrower of the two types that holds every id of the vocabulary.

    >>> token_dtype(50_368), token_dtype(65_536), token_dtype(65_537)
    ('uint16', 'uint16', 'uint32')
    """
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def check_special_tokens(special_token_ids: SpecialTokens, vocab_size: int) -> None:
    """Refuse special tokens that the vocabulary does not have.

    Raises:
        InputError: Naming the first of them.
    """
    for name, token_id in to_mapping(special_token_ids).items():
        if not 0 <= token_id < vocab_size:
            raise InputError(
                f"special token {name}: got id {token_id}, expected one of the vocabulary's "
                f"{vocab_size}"
            )


def read_manifest(path: Path) -> tuple[Manifest, str]:
    """Return the manifest of a finished shard folder, and its sha256.

    Raises:
        ShardError: There is none, or none that can be used.
    """
    file = path / MANIFEST
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ShardError(
            f"{path}: not a finished shard folder ({MANIFEST} is missing); "
            "make one with `modernbert prepare`"
        ) from None
    return parse_manifest(content, str(file))


def parse_manifest(content: bytes, name: str) -> tuple[Manifest, str]:
    """Return the manifest in a file's content, and its sha256; `name` is that of the file.

    Raises:
        ShardError: It cannot be used.
    """
    try:
        mapping = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{name}: not readable: {error}; prepare the corpus again") from None
    if not isinstance(mapping, dict) or mapping.get("format") != FORMAT:
        raise ShardError(f"{name}: in another program's format, expected {FORMAT!r}")
    if mapping.get("version") != VERSION:
        raise ShardError(
            f"{name}: got version {mapping.get('version')!r} of the format, expected {VERSION}; "
            "prepare the corpus again"
        )
    try:
        manifest = parse(Manifest, mapping, where=name)
    except SettingsError as error:
        raise ShardError(str(error)) from None
    _check_manifest(name, manifest)
    return manifest, hashlib.sha256(content).hexdigest()


def _check_manifest(file: str, manifest: Manifest) -> None:
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


_FLUSH_TOKENS = 1 << 20


class ShardWriter:
    """Writes a shard folder document by document, in bounded memory.

    As a context manager it finishes the folder on a clean exit and leaves it unfinished, without
    a manifest, after an exception.

    Raises:
        ShardError: The folder already holds finished shards.
        InputError: A special token id outside the vocabulary.
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
        self._records: list[ShardRecord] = []
        self._current: _OpenShard | None = None
        self._finished = False
        check_special_tokens(special_token_ids, vocab_size)
        _clear_unfinished(self.path)

    def add(self, token_ids: Sequence[int] | np.ndarray) -> None:
        """Append one document, given as its (num_tokens,) ids without special tokens.

        Raises:
            InputError: No ids at all, or one outside the vocabulary.
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
        manifest = Manifest(
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
        # In ASCII, since the name of a source may have no UTF-8 form.
        text = json.dumps(to_mapping(manifest), indent=1)
        write_whole(self.path / MANIFEST, text.encode() + b"\n")
        self._finished = True

    def abort(self) -> None:
        """Give up: no manifest is written, and the shard that was open is removed."""
        if self._current:
            self._current.discard()
            self._current = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
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
        return ids.astype(LITTLE_ENDIAN[self._dtype])

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

    def close(self) -> ShardRecord:
        self._flush()
        return ShardRecord(
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
        self._partial = path.with_name(TEMPORARY_PREFIX + path.name)
        self._file: BinaryIO = self._partial.open("wb")
        self._hash = hashlib.sha256()
        self._num_bytes = 0

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self._num_bytes += len(content)

    def close(self) -> FileRecord:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._path)
        sync(self._path.parent)
        return FileRecord(
            name=self._path.name, num_bytes=self._num_bytes, sha256=self._hash.hexdigest()
        )

    def discard(self) -> None:
        # Unbuffered bytes may find no room at the close either; the file goes in any case.
        with contextlib.suppress(OSError):
            self._file.close()
        self._partial.unlink(missing_ok=True)


def _clear_unfinished(path: Path) -> None:
    """Make the folder, and remove what an earlier, unfinished writer left in it."""
    if (path / MANIFEST).exists():
        raise ShardError(f"{path}: already holds finished shards; choose another folder")
    path.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    for kind in ("tokens", "offsets"):
        for leftover in path.glob(f"shard-*.{kind}"):
            leftover.unlink()
