"""Shards in object storage: fetched whole in spite of everything, kept within a bound, shared."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data import flaky
from tests.data.prepare_runner import SPECIAL

from modernbert.data import remote_files, shard_cache
from modernbert.data.mixture import Mixture
from modernbert.data.shard_cache import CacheSettings, cache_of
from modernbert.data.shards import ShardFolder, ShardWriter
from modernbert.errors import SettingsError, ShardError

TOKENS = 500  # of a shard: 1,000 bytes, and 16 of offsets
NUM_SHARDS = 4


@pytest.fixture(autouse=True)
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    flaky.register()
    flaky.reset()
    monkeypatch.setattr(remote_files, "_FIRST_PAUSE_SECONDS", 0.01)
    yield
    flaky.reset()
    cache_of.cache_clear()


@pytest.fixture
def local(tmp_path: Path) -> ShardFolder:
    """Shards of one document each."""
    writer = ShardWriter(
        tmp_path / "stored",
        vocab_size=256,
        special_token_ids=SPECIAL,
        tokenizer_fingerprint="bytes",
        shard_tokens=TOKENS,
    )
    with writer:
        for number in range(NUM_SHARDS):
            writer.add(np.full(TOKENS, number))
    return ShardFolder.open(tmp_path / "stored")


def settings(tmp_path: Path, **more: Any) -> CacheSettings:
    given = {"max_bytes": 1_000_000, "timeout_seconds": 20.0, "attempts": 4, **more}
    return CacheSettings(folder=tmp_path / "cache", **given)


def remote(local: ShardFolder, cache: CacheSettings, protocol: str = "flaky") -> ShardFolder:
    return ShardFolder.open(f"{protocol}://{local.path}", cache)


def kept(tmp_path: Path) -> list[str]:
    """The names of what is in the cache, but locks."""
    return sorted(p.name for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock")


@pytest.mark.parametrize("protocol", ["flaky", "file"])
def test_what_is_read_is_what_was_written(
    local: ShardFolder, tmp_path: Path, protocol: str
) -> None:
    folder = remote(local, settings(tmp_path), protocol)
    assert folder.fingerprint == local.fingerprint and folder.num_tokens == local.num_tokens
    for ours, theirs in zip(folder.shards, local.shards, strict=True):
        assert ours.tokens.dtype == theirs.tokens.dtype
        assert ours.tokens.tolist() == theirs.tokens.tolist()
        assert ours.offsets.tolist() == theirs.offsets.tolist()
    folder.verify()


def test_memory_storage(local: ShardFolder, tmp_path: Path) -> None:
    import fsspec

    storage = fsspec.filesystem("memory")
    for path in Path(local.path).iterdir():
        storage.pipe(f"/bucket/{path.name}", path.read_bytes())
    folder = ShardFolder.open("memory://bucket/", settings(tmp_path))
    assert folder.shards[2].tokens.tolist() == [2] * TOKENS
    storage.rm("/bucket", recursive=True)


def test_opening_fetches_the_manifest_alone_and_reading_what_is_read(
    local: ShardFolder, tmp_path: Path
) -> None:
    folder = remote(local, settings(tmp_path))
    assert dict(flaky.opened) == {"manifest.json": 1}
    _ = folder.shards[1].tokens, folder.shards[1].tokens
    assert dict(flaky.opened) == {"manifest.json": 1, "shard-00001.tokens": 1}


@pytest.mark.parametrize("fault", ["fail", "truncate", "flip", "stall"])
@pytest.mark.parametrize("name", ["manifest.json", "shard-00000.tokens"])
def test_a_fault_is_overcome(local: ShardFolder, tmp_path: Path, fault: str, name: str) -> None:
    if name == "manifest.json" and fault in ("truncate", "flip"):
        pytest.skip("a manifest says what its hash is to nobody")
    flaky.plan(name, fault, fault)
    folder = remote(local, settings(tmp_path, timeout_seconds=0.1))
    assert folder.shards[0].tokens.tolist() == [0] * TOKENS
    assert flaky.opened[name] == 3
    assert kept(tmp_path) == [f"{folder.shards[0].record.tokens.sha256}.data"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("fail", "OSError: 503 slow down"),
        ("truncate", "got 500 bytes, expected 1000"),
        ("flip", "sha256 differs"),
        ("stall", "no byte came for 0.1 seconds"),
    ],
)
def test_a_fault_that_stays_is_told(
    local: ShardFolder, tmp_path: Path, fault: str, told: str
) -> None:
    flaky.plan("shard-00000.tokens", *[fault] * 9)
    folder = remote(local, settings(tmp_path, timeout_seconds=0.1, attempts=2))
    with pytest.raises(ShardError, match=f"shard-00000.tokens.* in 2 attempts.*{told}"):
        _ = folder.shards[0].tokens
    assert flaky.opened["shard-00000.tokens"] == 2
    flaky.reset()
    assert folder.shards[0].tokens.tolist() == [0] * TOKENS


def test_an_attempt_that_comes_to_life_again_does_no_harm(
    local: ShardFolder, tmp_path: Path
) -> None:
    flaky.plan("shard-00000.tokens", "stall")
    folder = remote(local, settings(tmp_path, timeout_seconds=0.1))
    tokens = folder.shards[0].tokens
    flaky.released.set()
    time.sleep(0.1)
    assert tokens.tolist() == [0] * TOKENS
    assert kept(tmp_path) == [f"{folder.shards[0].record.tokens.sha256}.data"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("flaky:///nowhere", "cannot be read: FileNotFoundError.*check the address"),
        ("nosuch://bucket/shards", "cannot be opened: .*nosuch"),
    ],
)
def test_an_address_that_is_wrong_is_not_tried_again(tmp_path: Path, url: str, told: str) -> None:
    with pytest.raises(ShardError, match=told):
        ShardFolder.open(url, settings(tmp_path))
    assert flaky.opened["manifest.json"] <= 1


def test_no_more_than_the_bound_is_kept_and_the_oldest_goes(
    local: ShardFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_cache, "_TOUCH_SECONDS", 0.0)
    folder = remote(local, settings(tmp_path, max_bytes=2500))
    first = folder.shards[0].tokens
    _ = folder.shards[1].tokens
    _ = folder.shards[0].tokens  # so that the second is the one that was used longest ago
    _ = folder.shards[2].tokens
    assert set(kept(tmp_path)) == {f"{folder.shards[i].record.tokens.sha256}.data" for i in (0, 2)}
    for shard in folder.shards:
        _ = shard.tokens
    assert first.tolist() == [0] * TOKENS  # what was given out stays readable
    sizes = [path.stat().st_size for path in (tmp_path / "cache").iterdir()]
    assert sum(sizes) <= 2500


def test_a_bound_that_is_too_small_is_told(local: ShardFolder, tmp_path: Path) -> None:
    folder = remote(local, settings(tmp_path, max_bytes=999))
    with pytest.raises(ShardError, match=r"no room for the 1,000 bytes.*raise it in"):
        _ = folder.shards[0].tokens
    assert kept(tmp_path) == []


def test_a_file_that_was_changed_on_the_disk_is_fetched_again(
    local: ShardFolder, tmp_path: Path
) -> None:
    cache = settings(tmp_path)
    _ = remote(local, cache).shards[0].tokens
    (name,) = kept(tmp_path)
    for content in (b"x" * 1000, b"short"):
        cache_of.cache_clear()
        (tmp_path / "cache" / name).write_bytes(content)
        assert remote(local, cache).shards[0].tokens.tolist() == [0] * TOKENS
    assert flaky.opened["shard-00000.tokens"] == 3


def test_a_folder_travels_to_another_process_as_an_address(
    local: ShardFolder, tmp_path: Path
) -> None:
    folder = remote(local, settings(tmp_path))
    _ = folder.shards[0].tokens
    copy = pickle.loads(pickle.dumps(folder))
    assert copy == folder and copy.shards[3].tokens.tolist() == [3] * TOKENS


def test_a_mixture_of_remote_shards_is_that_of_local_ones(
    local: ShardFolder, tmp_path: Path
) -> None:
    folder = remote(local, settings(tmp_path, max_bytes=2500))
    given = {"seed": 1, "wanted_block_tokens": 700, "least_block_tokens": 100}
    ours, theirs = (Mixture([(each, 1.0)], **given) for each in (folder, local))  # type: ignore[arg-type]
    for block in range(6):
        a, b = ours.documents(block), theirs.documents(block)
        assert a.shard_ids.tolist() == b.shard_ids.tolist()
        assert [ours.shards[i].tokens[0] for i in a.shard_ids] == [*a.shard_ids]


PROGRAM = """
import json, sys, time
from pathlib import Path
from modernbert.data.shard_cache import CacheSettings
from modernbert.data.shards import ShardFolder
url, cache, max_bytes, order = json.loads(sys.argv[1])
settings = CacheSettings(folder=Path(cache), max_bytes=max_bytes, attempts=2)
folder = ShardFolder.open(url, settings)
for _ in range(20):
    for i in order:
        assert set(folder.shards[i].tokens.tolist()) == {i}, i
print("read")
sys.stdout.flush()
if len(sys.argv) > 2:
    time.sleep(60)
"""


def start(local: ShardFolder, tmp_path: Path, order: list[int], *more: str) -> Any:
    options = [f"file://{local.path}", str(tmp_path / "cache"), 4_000, order]
    command = [sys.executable, "-c", PROGRAM, json.dumps(options), *more]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_processes_share_a_cache(local: ShardFolder, tmp_path: Path) -> None:
    processes = [start(local, tmp_path, order) for order in ([0, 1, 2, 3], [3, 1, 0, 2])]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "read\n"), err
    assert sum((tmp_path / "cache" / name).stat().st_size for name in kept(tmp_path)) <= 4_000
    assert all(name.endswith(".data") for name in kept(tmp_path))


def test_what_another_process_uses_stays_until_it_dies(local: ShardFolder, tmp_path: Path) -> None:
    other = start(local, tmp_path, [0], "stay")
    try:
        assert other.stdout.readline() == "read\n"
        folder = remote(local, settings(tmp_path, max_bytes=2_000))
        for i in (1, 2, 3):
            _ = folder.shards[i].tokens
        name = f"{folder.shards[0].record.tokens.sha256}.data"
        assert name in kept(tmp_path) and len(kept(tmp_path)) == 2
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    _ = folder.shards[1].tokens
    assert name not in kept(tmp_path)


def test_what_a_killed_process_had_half_fetched_goes(local: ShardFolder, tmp_path: Path) -> None:
    folder = remote(local, settings(tmp_path, max_bytes=2_000))
    key = folder.shards[0].record.tokens.sha256
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{key}.partial").write_bytes(b"x" * 1000)
    (tmp_path / "cache" / f"{key}.partial.0").write_bytes(b"x" * 400)
    _ = folder.shards[1].tokens, folder.shards[2].tokens
    assert len(kept(tmp_path)) == 2 and all(name.endswith(".data") for name in kept(tmp_path))


@pytest.mark.parametrize("name", ["max_bytes", "timeout_seconds", "attempts"])
def test_numbers_out_of_their_range(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}: got 0"):
        CacheSettings(**{name: 0})


def test_a_folder_that_cannot_be_made(local: ShardFolder, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ShardError, match="cannot hold shards"):
        _ = remote(local, settings(tmp_path)).shards[0].tokens


def test_every_attempt_writes_to_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was given up deletes its file when it wakes up, whoever fetches then."""
    names = []

    def broken(_watch: object, _url: str, file: Any, *_rest: object) -> None:
        names.append(file.name)
        raise OSError("broken")

    monkeypatch.setattr(remote_files, "_copy", broken)
    for _ in range(2):
        with pytest.raises(ShardError, match="could not be downloaded in 2 attempts"):
            remote_files.fetch(
                "file:///none", tmp_path / "target", settings(tmp_path, attempts=2), num_bytes=1
            )
    assert len(set(names)) == 4
