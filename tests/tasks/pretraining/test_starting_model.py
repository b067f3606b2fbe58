"""Models to start from: new tokens in free slots, and tokenizers that are not the model's."""

from pathlib import Path

import pytest
import torch
from tests.tasks.pretraining.small import World, texts, write_shards

from modernbert.errors import ConfigError
from modernbert.tasks.pretraining.pretrain import build_model, pretrain
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.tokenizer.train import extend


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    recipe = world.recipe(tmp_path_factory.mktemp("start") / "run", training__total_tokens=900)
    pretrain(recipe)
    return recipe.output / "model"


def test_new_tokens_begin_as_the_mean_of_the_learnt_ones(
    tmp_path: Path, world: World, start: Path
) -> None:
    old = Tokenizer.from_pretrained(world.tokenizer)
    new = extend(old, ["<order>"])
    new.save_pretrained(tmp_path / "tokenizer")
    documents = [f"{text} <order>" for text in texts(40, seed=1)]
    write_shards(tmp_path / "shards", new, documents)
    recipe = world.recipe(
        tmp_path / "run",
        tokenizer=str(tmp_path / "tokenizer"),
        sources=[{"shards": str(tmp_path / "shards")}],
        evaluation__shards=str(tmp_path / "shards"),
        model={"start": str(start)},
        training__total_tokens=900,
    )
    before = build_model(world.recipe(tmp_path, model={"start": str(start)}))
    after = build_model(recipe)
    slot = new.token_to_id("<order>")
    assert slot is not None
    learnt = [i for i in range(old.vocab_size) if "[unused" not in old.id_to_token(i)]
    for name in ("decoder_weight", "decoder_bias"):
        one, other = getattr(before, name), getattr(after, name)
        torch.testing.assert_close(other[slot], one[learnt].mean(0))
        others = torch.arange(len(one)) != slot
        assert torch.equal(one[others], other[others])
    assert pretrain(recipe).status == "finished"
    delivered = Tokenizer.from_pretrained(recipe.output / "model")
    assert delivered.token_to_id("<order>") == slot


def test_another_tokenizer_of_the_same_size(tmp_path: Path, world: World, start: Path) -> None:
    named = extend(Tokenizer.from_pretrained(world.tokenizer), ["<order>"])
    (tmp_path / "model").mkdir()
    for path in start.iterdir():
        (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
    named.save_pretrained(tmp_path / "model")
    recipe = world.recipe(tmp_path / "run", model={"start": str(tmp_path / "model")})
    with pytest.raises(ConfigError, match="another tokenizer than the recipe's: token"):
        pretrain(recipe)


def test_a_model_without_a_tokenizer_is_taken_as_it_is(
    tmp_path: Path, world: World, start: Path
) -> None:
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model" / name).write_bytes((start / name).read_bytes())
    build_model(world.recipe(tmp_path / "run", model={"start": str(tmp_path / "model")}))
