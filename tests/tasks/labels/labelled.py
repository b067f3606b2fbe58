"""A world small enough to fine-tune in within a second: a model with a tokenizer, and rows."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.small_models import write_masked_model

from modernbert.settings import parse
from modernbert.tasks.finetune import find_verb
from modernbert.tasks.tuning.recipe import TuningRecipe
from modernbert.tokenizer.train import train

GOOD = ("good", "fine", "great", "lovely")
BAD = ("bad", "poor", "awful", "dull")
NEUTRAL = ("the", "film", "was", "a", "story", "of", "seven", "people")


def text(word: str, choose: random.Random) -> str:
    words = choose.choices(NEUTRAL, k=choose.randint(2, 9))
    words.insert(choose.randrange(len(words)), word)
    return " ".join(words)


def reviews(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Texts whose label follows from one of their words."""
    choose = random.Random(seed)
    rows = []
    for _ in range(count):
        label = choose.choice(["good", "bad"])
        rows.append({"text": text(choose.choice(GOOD if label == "good" else BAD), choose)})
        rows[-1]["label"] = label
    return rows


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_model(folder: Path, *, max_seqlen: int = 64) -> Path:
    """A masked language model that has learnt nothing."""
    choose = random.Random(0)
    texts = [text(word, choose) for word in (*GOOD, *BAD) for _ in range(9)]
    tokenizer = train(texts, vocab_size=448)
    return write_masked_model(
        folder, tokenizer, hidden_size=32, intermediate_size=48, max_seqlen=max_seqlen
    )


def recipe(
    model: Path,
    output: Path,
    train_rows: Path,
    dev: Path | None = None,
    *,
    verb: str = "classify",
    **changes: Any,
) -> TuningRecipe:
    """A recipe with a rate that suits such a model; a name with `__` changes a table's entry."""
    settings: dict[str, Any] = {
        "model": str(model),
        "output": str(output),
        "data": {"train": str(train_rows), **({} if dev is None else {"dev": str(dev)})},
        "training": {
            "epochs": 6,
            "learning_rate": 5e-3,
            "batch_size": 8,
            "precision": "float32",
        },
        "sweep": {"processes": 1},
    }
    for name, value in changes.items():
        table, _, key = name.partition("__")
        settings[table][key] = value
    return parse(find_verb(verb).recipe_class, settings, where="recipe")
