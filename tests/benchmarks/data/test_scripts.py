"""The scripts run in small, and write what they have measured."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.data import loader, preparing, shards
from benchmarks.data.shards import web_shards


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shards, "_LONGEST_TOKENS", 2_000)
    monkeypatch.setattr(shards, "_DRAWN_TOKENS", 1 << 14)
    return tmp_path / "cache"


def test_shards_have_web_lengths(cache: Path) -> None:
    folder = web_shards(cache / "web", 200_000, shard_tokens=50_000)
    lengths = np.concatenate([np.diff(s.offsets.astype(np.int64)) for s in folder.shards])
    assert 200_000 <= folder.num_tokens < 203_000 and len(folder.shards) > 3
    assert 300 < np.median(lengths) < 500
    assert web_shards(cache / "web", 200_000) == folder


def test_loader(cache: Path, tmp_path: Path) -> None:
    options = ["--cache", str(cache), "--out", str(tmp_path / "r.json"), "--sizes", "tiny"]
    options += ["--tokens", "60000", "--place", "30000", "--batches", "2", "--bin-tokens", "256"]
    loader.main(options)
    result = json.loads((tmp_path / "r.json").read_text())
    each = result["sizes"]["tiny"]
    assert len(each["training_tokens_per_second"]) == 3 and each["times"] > 0
    seconds = result["opening_seconds"]
    assert 0 < seconds["opened"] < seconds["found"] < seconds["first_batch"]


def test_preparing_compares_the_same_texts(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")  # it sets this: gone after the test
    texts, tokenizer = cache / "corpus-1", cache / "tokenizer"
    (cache / "python").mkdir(parents=True)
    lines = [json.dumps({"text": f"the text of number {number}"}) for number in range(50)]
    (cache / "python" / "train.jsonl").write_text("\n".join(lines) + "\n")
    assert preparing.corpus(cache, 1) == (texts, tokenizer)
    for name in ("many", "one"):
        given = preparing.batches(texts / name)
        assert sum(len(batch) for batch in given) == 50
    out = tmp_path / "r.json"
    preparing.main(f"--bytes 1 --rounds 2 --cache {cache} --out {out}".split())
    seconds = json.loads(out.read_text())["seconds"]
    assert seconds.keys() == {"library", "many", "one"} and min(map(len, seconds.values())) == 2
