"""The manifest of a shard folder: what it says, and whether it agrees with itself."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from modernbert.errors import InputError, SettingsError, ShardError
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
