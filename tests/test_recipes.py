"""The recipes of the package: each is read, built without memory, and planned."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modernbert.cli.plan import phases_of
from modernbert.cli.recipe import RECIPES as FOLDER
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import MaskedLanguageModel
from modernbert.settings import load, parse, to_mapping
from modernbert.tasks.pretraining.recipe import PhaseRecipe, PretrainingRecipe

RECIPES = sorted(FOLDER.glob("*.toml"))
# Of the tokenizer that each says how to make; the published one otherwise.
VOCABULARY = {"rehearsal": 8_192, "start": 8_192, "mini": 16_384}
PUBLISHED_BASE, PUBLISHED_LARGE = 149_655_232, 395_881_664
ROW = 1_024


def recipe(name: str) -> PretrainingRecipe:
    return load(PretrainingRecipe, FOLDER / f"{name}.toml")


def config(path: Path, phase: PhaseRecipe) -> EncoderConfig:
    """Of a phase, without the models that it starts from."""
    settings = phase.model
    if settings.start is not None:
        settings = replace(settings, start=None, preset="base", max_seqlen=8_192)
    settings = replace(settings, grow_from=None)
    numbers = {"vocab_size": VOCABULARY[path.stem]} if path.stem in VOCABULARY else {}
    return settings.config(max_seqlen=phase.packing.max_seqlen, **numbers)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_models_are_built(path: Path) -> None:
    loaded = load(PretrainingRecipe, path)
    assert parse(PretrainingRecipe, to_mapping(loaded), where="again") == loaded
    shapes = []
    for phase in loaded.phases:
        numbers = config(path, phase)
        assert phase.packing.max_seqlen <= numbers.max_seqlen
        with torch.device("meta"):
            model = MaskedLanguageModel(numbers)
        shapes.append({name: p.shape for name, p in model.named_parameters()})
        assert sum(p.numel() for p in model.parameters()) == numbers.num_parameters(head=True)
    assert all(each == shapes[0] for each in shapes)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_each_can_be_planned(path: Path) -> None:
    loaded = load(PretrainingRecipe, path)
    preset = "base" if loaded.phases[0].model.start else None
    planned = phases_of(loaded, preset=preset, mean_document_tokens=None)
    assert [phase.name for phase in planned] == [phase.name for phase in loaded.phases]


def test_there_are_those_that_the_documents_name() -> None:
    names = {path.stem for path in RECIPES}
    assert names == {"base", "large", "continue", "domain", "mini", "rehearsal", "start"}


def rows_a_step(phase: PhaseRecipe, tokens: int) -> int:
    return phase.batch.bins_at(tokens) * phase.packing.bin_tokens // phase.packing.max_seqlen


def test_base_has_the_papers_numbers() -> None:
    """P table 3."""
    pretraining, extension, decay = recipe("base").phases
    assert config(FOLDER / "base.toml", pretraining).num_parameters(head=True) == PUBLISHED_BASE
    assert [each.training.total_tokens for each in recipe("base").phases] == [
        1_719_000_000_000,
        250_000_000_000,
        50_000_000_000,
    ]
    assert [each.packing.max_seqlen for each in recipe("base").phases] == [1_024, 8_192, 8_192]
    assert [rows_a_step(each, 10**12) for each in recipe("base").phases] == [4_608, 576, 576]
    assert rows_a_step(pretraining, 0) == 768
    assert rows_a_step(pretraining, 50_000_000_000 - 1) == 3_840
    assert rows_a_step(pretraining, 50_000_000_000) == 4_608
    peaks = [each.training.schedule.peak_learning_rate for each in recipe("base").phases]
    assert peaks == [8e-4, 3e-4, 3e-4]
    assert pretraining.training.schedule.warmup_tokens == 3_000_000_000
    for phase in recipe("base").phases:
        assert (phase.masking.rate, phase.training.weight_decay) == (0.3, 1e-5)
        assert phase.dropout == 0.1
    assert decay.training.schedule.decay_tokens == decay.training.total_tokens
    assert decay.training.schedule.final_fraction == 0.001
    thetas = [config(FOLDER / "base.toml", each).global_theta for each in recipe("base").phases]
    assert thetas == [10_000, 160_000, 160_000]
    assert {each.model.local_theta for each in (pretraining, extension, decay)} == {None}


def test_large_has_the_papers_numbers() -> None:
    """P table 3, and the rollback at 900 billion tokens."""
    whole = recipe("large")
    pretraining, *_, decay = whole.phases
    assert config(FOLDER / "large.toml", pretraining).num_parameters(head=True) == PUBLISHED_LARGE
    assert whole.tokens_before(1) == 900_000_000_000
    assert whole.tokens_before(2) == 1_719_000_000_000
    assert whole.data_begins(1) == 0
    assert [rows_a_step(each, 10**12) for each in whole.phases] == [4_928, 4_928, 616, 624]
    assert rows_a_step(pretraining, 0) == 448
    assert rows_a_step(pretraining, 10_000_000_000 - 1) == 4_480
    peaks = [each.training.schedule.peak_learning_rate for each in whole.phases]
    assert peaks == [5e-4, 5e-5, 5e-5, 5e-5]
    assert [each.training.weight_decay for each in whole.phases] == [1e-5, 1e-6, 1e-6, 1e-6]
    assert pretraining.training.schedule.warmup_tokens == 2_000_000_000
    assert pretraining.model.grow_from == "runs/base/pretraining"
    assert decay.training.schedule.decay_tokens == 50_000_000_000


def test_the_small_ones_are_as_small_as_they_say() -> None:
    start, mini = (
        config(FOLDER / f"{name}.toml", recipe(name).phases[0]) for name in ("start", "mini")
    )
    assert 2 * start.num_parameters(head=True) < 10_000_000
    assert 37e6 < 2 * mini.num_parameters(head=True) < 39e6
    assert (mini.num_layers, mini.hidden_size) == (10, 384)
    rehearsed = recipe("rehearsal").phases
    assert [each.packing.max_seqlen for each in rehearsed] == [1_024, 8_192, 8_192]
