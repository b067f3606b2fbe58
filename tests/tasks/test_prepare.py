"""`modernbert.prepare` and `modernbert.pretrain` with plain arguments."""

from pathlib import Path

import pytest
from tests.tasks.pretraining.small import World

import modernbert
from modernbert.errors import SettingsError
from modernbert.settings import to_mapping


def test_a_corpus_and_a_tokenizer_become_shards(tmp_path: Path, world: World) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("The square of 7 is 49.\n" * 50)
    result = modernbert.prepare(corpus, tmp_path / "shards", world.tokenizer, workers=1)
    assert result.train.num_documents and result.held_out is None
    assert modernbert.load(tmp_path / "shards").fingerprint == result.train.fingerprint
    with pytest.raises(SettingsError, match="prepare: unknown key 'held'; did you mean 'held_out'"):
        modernbert.prepare(corpus, tmp_path / "other", world.tokenizer, held=0.1)


def test_a_recipe_may_be_a_mapping(tmp_path: Path, world: World) -> None:
    recipe = to_mapping(world.recipe(tmp_path / "run"))
    with pytest.raises(SettingsError, match="recipe: unknown key 'outputs'"):
        modernbert.pretrain({**recipe, "outputs": "x"})
    with pytest.raises(SettingsError, match="no such file"):
        modernbert.pretrain(tmp_path / "nowhere.toml")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.write(tmp_path_factory.mktemp("world"))
