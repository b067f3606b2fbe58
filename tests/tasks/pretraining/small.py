"""A world small enough to pretrain in within a second: a tokenizer, shards and recipes."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modernbert.data.shards import ShardFolder, ShardWriter, SpecialTokens
from modernbert.settings import parse
from modernbert.tasks.pretraining.recipe import PretrainingRecipe
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.tokenizer.train import train

_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")


def texts(number: int, *, seed: int) -> Iterator[str]:
    """Documents that say one word over and over, so that a masked word follows from the others."""
    choose = random.Random(seed)
    for _ in range(number):
        yield " ".join([choose.choice(_WORDS)] * choose.randint(5, 70))


def make_tokenizer() -> Tokenizer:
    return train(texts(50, seed=0), vocab_size=448)


def write_shards(
    folder: Path, tokenizer: Tokenizer, documents: Sequence[str], **changes: Any
) -> ShardFolder:
    """A shard folder of these documents; `changes` are of what the writer notes."""
    noted = {
        "vocab_size": tokenizer.vocab_size,
        "special_token_ids": SpecialTokens(
            cls=tokenizer.cls_token_id,
            sep=tokenizer.sep_token_id,
            pad=tokenizer.pad_token_id,
            mask=tokenizer.mask_token_id,
            unk=tokenizer.unk_token_id,
        ),
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "shard_tokens": 4000,
    }
    with ShardWriter(folder, **{**noted, **changes}) as writer:
        for token_ids in tokenizer.encode_batch(documents, special_tokens=False):
            writer.add(token_ids)
    return ShardFolder.open(folder)


@dataclass(frozen=True)
class World:
    """Folders of a tokenizer, of two sources of shards and of held-out ones."""

    path: Path

    @classmethod
    def write(cls, path: Path) -> "World":
        world, tokenizer = cls(path), make_tokenizer()
        tokenizer.save_pretrained(world.tokenizer)
        for number, folder in enumerate((*world.sources, world.held_out), start=1):
            write_shards(folder, tokenizer, list(texts(200 // number, seed=number)))
        return world

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def sources(self) -> tuple[Path, Path]:
        return self.path / "first", self.path / "second"

    @property
    def held_out(self) -> Path:
        return self.path / "held-out"

    def settings(self, output: Path, **changes: Any) -> dict[str, Any]:
        """A recipe as TOML gives it; a name with dots changes one entry of a table."""
        settings: dict[str, Any] = {
            "output": str(output),
            "tokenizer": str(self.tokenizer),
            "sources": [
                {"shards": str(self.sources[0]), "weight": 2.0},
                {"shards": str(self.sources[1])},
            ],
            "model": {
                "preset": "tiny",
                "num_layers": 2,
                "global_every": 2,
                "hidden_size": 64,
                "intermediate_size": 48,
                "num_heads": 2,
                "window": 8,
            },
            "packing": {"max_seqlen": 48, "bin_tokens": 128},
            "batch": {"bins_per_step": 3, "bins_per_micro_batch": 2},
            "training": {
                "total_tokens": 4_500,
                "precision": "float32",
                "checkpoint_every_steps": 4,
                "evaluate_every_steps": 5,
                "schedule": {"peak_learning_rate": 0.01, "warmup_tokens": 800},
            },
            "evaluation": {"shards": str(self.held_out), "max_tokens": 1_000},
        }
        for name, value in changes.items():
            *tables, key = name.split("__")
            place = settings
            for table in tables:
                place = place[table]
            place[key] = value
        return settings

    def recipe(self, output: Path, **changes: Any) -> PretrainingRecipe:
        """That recipe: 12 steps, evaluations at 0, 5, 10 and 12, checkpoints at 4, 8 and 12."""
        return parse(PretrainingRecipe, self.settings(output, **changes), where="recipe")

    def phased(self, output: Path, **changes: Any) -> PretrainingRecipe:
        """Three phases: 4, 4 and 4 steps; the second is longer in its sequences and angles."""
        longer = {
            "packing": {"max_seqlen": 80},
            "model": {"global_theta": 50_000.0},
            "training": {"schedule": {"peak_learning_rate": 0.005, "warmup_tokens": 0}},
        }
        decay = {"decay": "1-sqrt", "decay_tokens": 1_500}
        last = {
            "name": "decay",
            **longer,
            "sources": [{"shards": str(self.sources[1])}],
            "masking": {"rate": 0.15},
            "training": {"schedule": {**longer["training"]["schedule"], **decay}},
        }
        settings = self.settings(output, training__total_tokens=1_500, **changes)
        settings["phases"] = [{"name": "short"}, {"name": "extension", **longer}, last]
        return parse(PretrainingRecipe, settings, where="recipe")
