"""A world small enough to learn a ranking in within seconds: a model, and queries with answers."""

import json
import random
from pathlib import Path
from typing import Any

from tests.small_models import write_masked_model

from modernbert.settings import parse
from modernbert.tasks.finetune import find_verb
from modernbert.tokenizer.train import train

NAMES = ("alpha", "bravo", "carol", "delta", "eagle", "fable", "grape", "hotel")
ASKED = dict(
    zip(NAMES, ("red", "blue", "cyan", "pink", "gold", "grey", "jade", "lime"), strict=True)
)


def document(name: str, number: int) -> str:
    return f"here is {name} with the number {number}"


def query(name: str) -> str:
    return f"where is {ASKED[name]}"


def rows(number: int, *, seed: int, scores: bool = False) -> list[dict[str, Any]]:
    """A query asks for a colour; the document that has the name of that colour answers."""
    choose = random.Random(seed)
    found = []
    for index in range(number):
        name, other, third = choose.sample(NAMES, 3)
        row: dict[str, Any] = {
            "query": query(name),
            "positive": document(name, index % 9),
            "negative_1": document(other, index % 9),
            "negative_2": document(third, index % 7),
        }
        found.append({**row, "scores": [5.0, 1.0, 0.0]} if scores else row)
    return found


def held_out() -> list[dict[str, Any]]:
    """Each name once, and every other as what does not answer."""
    return [
        {
            "query": query(name),
            "positive": document(name, 11),
            "negatives": [document(other, 11) for other in NAMES if other != name],
        }
        for name in NAMES
    ]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_model(folder: Path) -> Path:
    """A masked language model that has learnt nothing."""
    tokenizer = train(
        [document(name, i) + " where" for i, name in enumerate(NAMES)], vocab_size=448
    )
    return write_masked_model(folder, tokenizer, max_seqlen=48)


def recipe(
    start: Path,
    folder: Path,
    *,
    kind: str = "retrieve",
    scores: bool = False,
    sweep: dict[str, Any] | None = None,
    **training: Any,
) -> Any:
    """The recipe of a kind, without what it has no use for."""
    if kind != "late-interaction":
        training.pop("skip_punctuation", None)
    if kind == "rerank":
        training.pop("query_prompt", None)
    train_file = write(folder / "train.jsonl", rows(160, seed=0, scores=scores))
    dev_file = write(folder / "dev.jsonl", held_out())
    return parse(
        find_verb(kind).recipe_class,
        {
            "model": str(start),
            "output": str(folder / "run"),
            "data": {"train": str(train_file), "dev": str(dev_file)},
            "training": {
                "epochs": 6,
                "learning_rate": 3e-3,
                "batch_size": 8,
                "precision": "float32",
                **training,
                **({"dim": 32} if kind == "late-interaction" else {}),
            },
            "sweep": {"processes": 1, **(sweep or {})},
        },
        where="test",
    )
