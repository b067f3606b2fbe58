"""`modernbert demo` on a small corpus, and its recipe."""

import shutil
from pathlib import Path

import pytest
from tests.journey.command_line import succeed, write_corpus, write_recipe
from tests.tasks.pretraining.small import World, texts

from modernbert.cli import demo as demo_verb
from modernbert.cli.demo import DemoFolder
from modernbert.cli.demo_results import EXAMPLES
from modernbert.data import python_corpus
from modernbert.settings import load
from modernbert.tasks.pretraining.recipe import PretrainingRecipe


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoFolder:
    """A demo of a few seconds: another corpus, and a recipe that a user has made smaller."""
    folder = DemoFolder(tmp_path / "a demo")

    def collect(output: Path) -> None:
        output.mkdir(parents=True)
        for file, seed in ((folder.held_out_text, 1), (folder.train_text, 2)):
            write_corpus(file, [*EXAMPLES, *texts(200, seed=seed)])

    monkeypatch.setattr(python_corpus, "collect", collect)
    monkeypatch.setattr(demo_verb, "VOCAB_SIZE", 448)
    folder.path.mkdir()
    settings = World(folder.path).settings(
        folder.run,
        tokenizer=str(folder.tokenizer),
        sources=[{"shards": str(folder.train_shards)}],
        evaluation={"shards": str(folder.held_out_shards)},
        packing={"max_seqlen": 128, "bin_tokens": 256},
        training__total_tokens=20_000,
    )
    write_recipe(folder.recipe, settings)
    return folder


def test_from_nothing_to_a_model(folder: DemoFolder) -> None:
    answer = succeed("demo", folder.path)
    stages = [line for line in answer.stderr.splitlines() if line.startswith("[")]
    assert [stage[:5] for stage in stages] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    lines = answer.stdout.splitlines()
    losses = {}
    for name in ("always by frequency", "the model before training", "the model after training"):
        (line,) = [line for line in lines if line.startswith(name)]
        losses[name] = float(line.split()[-2])
        assert line.endswith("%")
    by_frequency, before, after = losses.values()
    assert after < by_frequency < before
    for text in EXAMPLES:
        place = lines.index(text)
        assert lines[place + 1].startswith("    before   ")
        assert lines[place + 2].startswith("    after    ")
        assert lines[place + 1] != lines[place + 2]
    assert (folder.run / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert f"model   {folder.run / 'model'}" in lines
    assert f"  modernbert info '{folder.run / 'model'}'" in lines  # quoted, as the path has a space


def test_again_it_shows_the_same(folder: DemoFolder) -> None:
    first = succeed("demo", folder.path)
    weights = folder.run / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert succeed("demo", folder.path).stdout == first.stdout
    assert weights.stat().st_mtime_ns == before
    # Each stage is taken up where its result is missing.
    shutil.rmtree(folder.run / "model")
    assert succeed("demo", folder.path).stdout == first.stdout


def test_its_own_recipe(tmp_path: Path) -> None:
    """The template of the package, with paths in it that TOML and JSON must quote."""
    folder = DemoFolder(tmp_path / 'a "demo" of café')
    folder.path.mkdir()
    demo_verb._write_recipe(folder)
    recipe = load(PretrainingRecipe, folder.recipe)
    assert recipe.output == folder.run and recipe.tokenizer == str(folder.tokenizer)
    (phase,) = recipe.phases
    assert [source.shards for source in phase.sources] == [str(folder.train_shards)]
    assert phase.evaluation and phase.evaluation.shards == str(folder.held_out_shards)
    config = phase.model.config(max_seqlen=phase.packing.max_seqlen, vocab_size=8192)
    assert config.num_layers == 6 and config.hidden_size == 256
    assert phase.training.schedule.decay == "1-sqrt"
