"""The way that a user goes, once for all tests: from a corpus to a model."""

from pathlib import Path

import pytest
from tests.journey.command_line import Answer, succeed, write_corpus, write_recipe
from tests.tasks.pretraining.small import World, texts


class Journey:
    """What each verb wrote and said on the way; the world's paths are those of the small recipe."""

    def __init__(self, path: Path) -> None:
        self.world = World(path)
        self.said: dict[str, Answer] = {}
        self.output = path / "run"
        self.recipe = path / "recipe.toml"
        corpus = write_corpus(path / "corpus.jsonl", texts(400, seed=0))
        self.said["tokenizer"] = succeed(
            "tokenizer", "train", corpus, self.world.tokenizer, "--vocab-size", 448
        )
        shards = path / "shards"
        self.said["prepare"] = succeed(
            *("prepare", corpus, shards, "--tokenizer", self.world.tokenizer),
            *("--held-out", 0.1, "--workers", 1),
        )
        self.settings = self.world.settings(
            self.output,
            sources=[{"shards": str(shards)}],
            evaluation={"shards": str(shards / "held-out")},
            training__total_tokens=60_000,
            training__evaluate_every_steps=50,
        )
        write_recipe(self.recipe, self.settings)
        self.said["pretrain"] = succeed("pretrain", self.recipe)

    @property
    def model(self) -> Path:
        return self.output / "model"


@pytest.fixture(scope="session")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    return Journey(tmp_path_factory.mktemp("journey"))
