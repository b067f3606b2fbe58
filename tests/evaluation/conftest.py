"""A tiny model, labelled rows, and a folder of judged texts."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.small_models import write_masked_model

from modernbert.tokenizer.train import train

WORDS = ("good", "fine", "nice", "bad", "poor", "awful")


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows(number: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {"text": f"number {i} is {WORDS[i % 6]}", "label": "yes" if i % 6 < 3 else "no"}
        for i in range(first, first + number)
    ]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train([row["text"] for row in rows(60)], vocab_size=448)
    return write_masked_model(folder, tokenizer, max_seqlen=48)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in ("first", "second"):
        write(folder / name / "train.jsonl", rows(48))
        write(folder / name / "dev.jsonl", rows(12, first=100))
    write(folder / "judged" / "corpus.jsonl", [{"_id": w, "text": f"it is {w}"} for w in WORDS])
    write(folder / "judged" / "queries.jsonl", [{"_id": f"q{w}", "text": w} for w in WORDS])
    judgements = [{"query-id": f"q{w}", "corpus-id": w, "score": 1} for w in WORDS]
    write(folder / "judged" / "qrels.jsonl", judgements)
    return folder
