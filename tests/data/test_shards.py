"""Shard folders: what goes in comes out, and damage is found."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.data import shard_files
from modernbert.data import shards as shards_module
from modernbert.data.shard_files import token_dtype
from modernbert.data.shards import ShardFolder, ShardWriter, Source, SpecialTokens
from modernbert.errors import InputError, ShardError
from modernbert.files import TEMPORARY_PREFIX

SPECIAL = SpecialTokens(cls=1, sep=2, pad=3, mask=4, unk=0)


def writer_of(path: Path, *, vocab_size: int = 300, shard_tokens: int = 10) -> ShardWriter:
    return ShardWriter(
        path,
        vocab_size=vocab_size,
        special_token_ids=SPECIAL,
        tokenizer_fingerprint="abc",
        shard_tokens=shard_tokens,
    )


def write(path: Path, documents: list[list[int]], **options: int) -> ShardFolder:
    with writer_of(path, **options) as writer:
        for document in documents:
            writer.add(document)
    return ShardFolder.open(path)


def documents_of(folder: ShardFolder) -> list[list[int]]:
    return [
        shard.tokens[begin:end].tolist()
        for shard in folder.shards
        for begin, end in zip(shard.offsets[:-1], shard.offsets[1:], strict=True)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> ShardFolder:
    return write(tmp_path / "shards", [[5, 6, 7], [8], [9] * 9, [10, 299]])


@pytest.fixture(autouse=True)
def nothing_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "_verified", set())
    monkeypatch.setattr(shards_module, "_ascending", set())


@settings(deadline=None, max_examples=40)
@given(
    documents=st.lists(st.lists(st.integers(0, 70_000), min_size=1, max_size=30), max_size=20),
    vocab_size=st.sampled_from([70_001, 1 << 20]),
    shard_tokens=st.integers(1, 60),
)
def test_documents_come_back_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[list[int]],
    vocab_size: int,
    shard_tokens: int,
) -> None:
    path = tmp_path_factory.mktemp("round-trip")
    folder = write(path, documents, vocab_size=vocab_size, shard_tokens=shard_tokens)
    folder.verify()
    assert documents_of(folder) == documents
    assert folder.num_documents == len(documents)
    assert folder.num_tokens == sum(map(len, documents))
    for shard in folder.shards:
        assert shard.num_tokens <= shard_tokens or shard.num_documents == 1


def test_manifest_tells_everything(tmp_path: Path) -> None:
    with writer_of(tmp_path) as writer:
        writer.add(np.array([7, 8], dtype=np.uint16))
        writer.finish([Source(name="books", num_documents=1, num_tokens=2)])
    folder = ShardFolder.open(tmp_path)
    assert folder.special_token_ids == SPECIAL
    assert (folder.vocab_size, folder.tokenizer_fingerprint) == (300, "abc")
    assert folder.sources == (Source(name="books", num_documents=1, num_tokens=2),)
    assert len(folder.fingerprint) == 64
    assert folder.shards[0].offsets.dtype == np.uint64


@pytest.mark.parametrize(("vocab_size", "expected"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_width_follows_the_vocabulary(tmp_path: Path, vocab_size: int, expected: type) -> None:
    folder = write(tmp_path, [[vocab_size - 1]], vocab_size=vocab_size)
    assert folder.shards[0].tokens.dtype == expected
    assert folder.shards[0].tokens.tolist() == [vocab_size - 1]
    assert token_dtype(vocab_size) == expected.__name__


def test_large_documents_are_flushed_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_files, "_FLUSH_TOKENS", 4)
    documents = [[5] * length for length in (1, 3, 4, 7, 2)]
    folder = write(tmp_path, documents, shard_tokens=100)
    folder.verify()
    assert documents_of(folder) == documents


def test_folder_travels_to_another_process_without_its_tokens(folder: ShardFolder) -> None:
    _ = folder.shards[0].tokens, folder.shards[0].offsets
    copy = pickle.loads(pickle.dumps(folder))
    assert len(pickle.dumps(folder)) < 3000 and copy == folder
    assert documents_of(copy) == documents_of(folder)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([5, 300], "document 1: token id 300 is outside the vocabulary of 300"),
        ([-1, 5], "document 1: token id -1 is outside"),
        ([], "document 1: got"),
        ([1.5], "document 1: got"),
        ([[1, 2]], "document 1: got"),
    ],
)
def test_bad_documents_are_named(tmp_path: Path, document: list[int], told: str) -> None:
    with pytest.raises(InputError, match=told), writer_of(tmp_path) as writer:
        writer.add([5])
        writer.add(document)
    with pytest.raises(ShardError, match="not a finished shard folder"):
        ShardFolder.open(tmp_path)


def test_special_tokens_must_be_in_the_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="special token mask: got id 4"):
        writer_of(tmp_path, vocab_size=4)


def test_finished_folder_is_not_written_again(folder: ShardFolder) -> None:
    with pytest.raises(ShardError, match="already holds finished shards"):
        writer_of(folder.path)


def test_leftovers_of_an_unfinished_writer_go(tmp_path: Path) -> None:
    stopped = writer_of(tmp_path)
    for _ in range(3):
        stopped.add([5] * 8)
    stopped.abort()
    (tmp_path / f"{TEMPORARY_PREFIX}shard-00002.tokens").write_bytes(b"killed")
    folder = write(tmp_path, [[6]])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest.json",
        "shard-00000.offsets",
        "shard-00000.tokens",
    ]
    assert documents_of(folder) == [[6]]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"manifest\.json is missing"):
        ShardFolder.open(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "litdata"}, "another program's format"),
        ({"version": 2}, "got version 2 of the format, expected 1"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_tokens": 3}, "totals contradict"),
        ({"dtype": "uint32"}, "contradict its size"),
    ],
)
def test_foreign_manifest(folder: ShardFolder, change: dict[str, object], told: str) -> None:
    manifest = folder.path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    with pytest.raises(ShardError, match=told):
        ShardFolder.open(folder.path)


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, "\x00"])
def test_unreadable_manifest(folder: ShardFolder, content: str) -> None:
    (folder.path / "manifest.json").write_text(content)
    with pytest.raises(ShardError, match=r"manifest\.json"):
        ShardFolder.open(folder.path)


def test_manifest_cannot_point_outside_its_folder(folder: ShardFolder) -> None:
    manifest = folder.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("shard-00000.tokens", "../other.tokens"))
    with pytest.raises(ShardError, match="not a file of this folder"):
        ShardFolder.open(folder.path)


@pytest.mark.parametrize("suffix", ["tokens", "offsets"])
def test_files_of_another_length(folder: ShardFolder, suffix: str) -> None:
    path = folder.path / f"shard-00000.{suffix}"
    content = path.read_bytes()
    for damaged, told in ((content[:-1], "truncated"), (content + b"\0", "too long")):
        path.write_bytes(damaged)
        with pytest.raises(ShardError, match=told):
            ShardFolder.open(folder.path)
    path.unlink()
    with pytest.raises(ShardError, match="missing"):
        ShardFolder.open(folder.path)


@pytest.mark.parametrize("suffix", ["tokens", "offsets"])
def test_flipped_bit_is_found_at_the_first_touch(folder: ShardFolder, suffix: str) -> None:
    path = folder.path / f"shard-00001.{suffix}"
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    opened = ShardFolder.open(folder.path)
    assert len(opened.shards[0].tokens) == opened.shards[0].num_tokens
    with pytest.raises(ShardError, match=f"shard-00001.{suffix}: its bytes have changed"):
        _ = getattr(opened.shards[1], suffix)
    with pytest.raises(ShardError, match=f"shard-00001.{suffix}"):
        opened.verify()


def test_hash_is_computed_once_a_process(
    folder: ShardFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ = folder.shards[0].tokens
    monkeypatch.setattr(shards_module.LocalFiles, "verify", lambda *_: pytest.fail("hashed again"))
    _ = ShardFolder.open(folder.path).shards[0].tokens


def with_hash_of(folder: ShardFolder, suffix: str, content: bytes) -> ShardFolder:
    """A folder in which a file was changed by someone who set its hash right."""
    path = folder.path / f"shard-00000.{suffix}"
    manifest = folder.path / "manifest.json"
    old, new = (hashlib.sha256(data).hexdigest() for data in (path.read_bytes(), content))
    path.write_bytes(content)
    manifest.write_text(manifest.read_text().replace(old, new))
    return ShardFolder.open(folder.path)


def test_offsets_must_ascend(folder: ShardFolder) -> None:
    offsets = folder.shards[0].offsets.copy()
    offsets[1], offsets[2] = offsets[2], offsets[1]
    changed = with_hash_of(folder, "offsets", offsets.tobytes())
    with pytest.raises(ShardError, match="offsets do not ascend"):
        _ = changed.shards[0].offsets


def test_verify_finds_an_id_outside_the_vocabulary(folder: ShardFolder) -> None:
    tokens = folder.shards[0].tokens.copy()
    tokens[0] = 300
    changed = with_hash_of(folder, "tokens", tokens.tobytes())
    with pytest.raises(ShardError, match="token id 300 is outside the vocabulary"):
        changed.verify()
