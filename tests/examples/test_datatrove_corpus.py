"""The pipeline of the example, with datatrove itself, and its token files as shards."""

import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.cli.conftest import Run, run

from modernbert.data.shards import ShardFolder
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.tokenizer.train import train

__all__ = ["run"]
pytest.importorskip("datatrove")

SCRIPT = Path(__file__).parents[2] / "examples" / "datatrove_corpus.py"
WORDS = [*"abcdefghij", "quick", "brown", "fox", "lazy", "dog", "seven", "wizards", "mixing"]


def test_from_parquet_to_shards(run: Run, tmp_path: Path) -> None:
    choose = random.Random(0)
    texts = [" ".join(choose.choices(WORDS, k=choose.randint(25, 60))) for _ in range(30)]
    given = [*texts, texts[3] + " indeed", "too short", "12345 67890 " * 30]
    (tmp_path / "raw").mkdir()
    for number in range(2):
        table = pa.table({"text": given[number::2]})
        pq.write_table(table, tmp_path / "raw" / f"{number}.parquet")
    train(texts, vocab_size=400).save_pretrained(tmp_path / "tokenizer")
    command = [sys.executable, SCRIPT, tmp_path / "raw", tmp_path / "work", "--tasks", "2"]
    subprocess.run(
        [*map(str, command), "--tokenizer", str(tmp_path / "tokenizer")],
        check=True,
        capture_output=True,
        timeout=120,
    )
    answer = run(
        *("prepare", tmp_path / "work" / "tokens", tmp_path / "shards", "--from-datatrove"),
        *("--tokenizer", tmp_path / "tokenizer", "--held-out", 0),
    )
    assert answer.exit_code == 0, answer.stderr
    folder = ShardFolder.open(tmp_path / "shards")
    tokenizer = Tokenizer.from_pretrained(tmp_path / "tokenizer")
    found = {
        tokenizer.decode(shard.tokens[begin:end])
        for shard in folder.shards
        for begin, end in zip(shard.offsets[:-1], shard.offsets[1:], strict=True)
    }
    assert folder.num_documents == len(texts)
    assert found - {texts[3] + " indeed"} | {texts[3]} == set(texts)  # one of the two alike
