"""What is compared, and whose figures count."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.inference.embedding import REFERENCE, measure, summary

TEXTS = ["one", "two", "three", "four"]
UNIT = np.eye(4, dtype=np.float32)


def encoder(vectors: Any, asked: list[tuple[int, int]]) -> Callable[[list[str], int], Any]:
    def encode(texts: list[str], batch_size: int) -> Any:
        asked.append((len(texts), batch_size))
        return vectors[: len(texts)]

    return encode


def test_everyone_is_compared_with_the_reference() -> None:
    asked: dict[str, list[tuple[int, int]]] = {"ours auto": [], REFERENCE: []}
    turned = np.roll(UNIT, 1, axis=1) * 0.6 + UNIT * 0.8
    rows = measure(
        {
            "ours auto": encoder(turned, asked["ours auto"]),
            REFERENCE: encoder(UNIT, asked[REFERENCE]),
        },
        TEXTS,
        100,
        Namespace(rounds=2, seconds=10, cpu_time=False),
    )
    assert rows["ours auto"]["min_cosine"] == pytest.approx(0.8)
    assert rows["ours auto"]["largest_difference"] == pytest.approx(0.6)
    assert rows[REFERENCE]["min_cosine"] == 1 and rows[REFERENCE]["largest_difference"] == 0
    assert {size for _, size in asked["ours auto"]} == {1}
    assert {1, 4, 16} == {size for texts, size in asked[REFERENCE] if texts == 1}  # the trial
    assert [texts for texts, _ in asked[REFERENCE]][-3:] == [4, 4, 4]  # quality and two rounds
    assert all(len(row["seconds"]) == 2 and row["tokens_per_second"] > 0 for row in rows.values())


def row(precision: str, seconds: float, cosine: float = 1.0) -> dict[str, Any]:
    return {
        "precision": precision,
        "seconds": [seconds] * 3,
        "tokens_per_second": 1 / seconds,
        "min_cosine": cosine,
    }


def test_the_best_of_float32_and_the_best_whose_vectors_are_good_enough() -> None:
    rows = {
        "ours auto": row("bfloat16", 1),
        "ours int8": row("int8", 0.5),
        REFERENCE: row("float32", 4),
        "fastembed float32": row("float32", 3),
        "openvino bfloat16": row("bfloat16", 2, 0.9999),
        "onnxruntime int8": row("int8", 1.5, 0.98),
    }
    assert summary(rows) == {
        "float32": {"best_peer": "fastembed float32", "speedup": 3},
        "any": {"best_peer": "openvino bfloat16", "speedup": 2},
    }
