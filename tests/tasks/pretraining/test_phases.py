"""A pretraining of several phases: what each sees, what it leaves, and what is refused."""

import signal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.pretraining.small import World

from modernbert.errors import GrowthWarning, SettingsError
from modernbert.model.heads import MaskedLanguageModel
from modernbert.settings import load, parse, to_mapping, to_toml
from modernbert.tasks.pretraining.data import PretrainingData
from modernbert.tasks.pretraining.pretrain import Pretraining, build_model, pretrain
from modernbert.tasks.pretraining.recipe import PretrainingRecipe
from modernbert.training.log import read_metrics
from modernbert.training.trainer import Progress, Step


def rows(recipe: PretrainingRecipe, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_metrics(recipe.output / "metrics.jsonl") if row["kind"] == kind]


def first_steps(recipe: PretrainingRecipe, index: int, number: int) -> list[Step]:
    data = PretrainingData.open(recipe, index)
    steps = Pretraining(data).steps(Progress(phase=index, tokens=data.tokens_before))
    try:
        return list(islice(steps, number))
    finally:
        steps.close()


def token_ids(steps: list[Step]) -> list[list[int]]:
    return [batch.batch.token_ids.tolist() for step in steps for batch in step.micro_batches]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, world: World) -> PretrainingRecipe:
    recipe = world.phased(tmp_path_factory.mktemp("phased") / "run")
    assert pretrain(recipe).status == "finished"
    return recipe


def test_each_phase_leaves_a_model(finished: PretrainingRecipe) -> None:
    models = {
        name: MaskedLanguageModel.from_pretrained(finished.output / name)
        for name in ("short", "extension", "model")
    }
    numbers = {
        name: (model.config.max_seqlen, model.config.global_theta, model.config.local_theta)
        for name, model in models.items()
    }
    assert numbers == {
        "short": (48, 10_000.0, 10_000.0),
        "extension": (80, 50_000.0, 10_000.0),
        "model": (80, 50_000.0, 10_000.0),
    }
    weights = [model.decoder_weight for model in models.values()]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])


def test_one_run_counts_over_all_phases(finished: PretrainingRecipe) -> None:
    steps = rows(finished, "step")
    assert [row["step"] for row in steps] == list(range(1, len(steps) + 1))
    assert [row["phase"] for row in rows(finished, "phase")] == ["short", "extension", "decay"]
    assert steps[-1]["tokens"] >= 4_500 > steps[-2]["tokens"]
    rates = [row["num_targets"] / row["num_tokens"] for row in steps if row["phase"] == "decay"]
    assert sum(rates) / len(rates) == pytest.approx(0.15, abs=0.05)
    assert steps[-1]["learning_rate"] == pytest.approx(0.005 * 0.001)


def test_an_evaluation_on_either_side_of_a_border_has_the_angles_of_its_phase(
    finished: PretrainingRecipe,
) -> None:
    at_border = [row for row in rows(finished, "evaluation") if row["step"] == 4]
    assert [row["phase"] for row in at_border] == ["short", "extension"]
    model = MaskedLanguageModel.from_pretrained(finished.output / "short").eval()
    task = Pretraining(PretrainingData.open(finished, 1))
    model.config = model.encoder.config = task.data.config
    with torch.no_grad():
        figures = task.evaluate(model)
    assert figures["held_out_loss"] == pytest.approx(at_border[1]["held_out_loss"], abs=1e-6)
    assert at_border[0]["held_out_loss"] != at_border[1]["held_out_loss"]


def test_the_recipe_in_the_run_s_folder(finished: PretrainingRecipe) -> None:
    path = finished.output / "recipe.toml"
    assert load(PretrainingRecipe, path) == finished
    mapping = to_mapping(finished)
    assert mapping["batch"]["bins_per_step"] == 3
    assert "batch" not in mapping["phases"][0]
    assert mapping["phases"][2]["masking"] == {"rate": 0.15}


def test_a_single_phase_is_written_as_it_is_read(world: World, output: Path) -> None:
    mapping = to_mapping(world.recipe(output))
    assert "phases" not in mapping and "name" not in mapping
    assert mapping["training"]["total_tokens"] == 4_500
    named = parse(PretrainingRecipe, {**mapping, "phases": [{"name": "mine"}]}, where="recipe")
    assert to_mapping(named)["phases"] == [{"name": "mine"}]
    assert parse(PretrainingRecipe, to_mapping(named), where="again") == named
    assert "[[phases]]" in to_toml(named) or "phases = [" in to_toml(named)


def test_phases_see_their_data_in_orders_of_their_own(world: World, output: Path) -> None:
    recipe = world.phased(output)
    same_sources = [token_ids(first_steps(recipe, index, 4)) for index in (0, 1)]
    assert same_sources[0] != same_sources[1]
    assert PretrainingData.open(recipe, 0).seed == 0
    assert len({PretrainingData.open(recipe, index).seed for index in range(3)}) == 3
    assert [recipe.data_begins(index) for index in range(3)] == [0, 1, 2]


def test_a_phase_with_the_same_data_goes_on_in_it(world: World, tmp_path: Path) -> None:
    settings = world.settings(tmp_path / "run", training__total_tokens=1_500)
    whole = parse(
        PretrainingRecipe,
        {**settings, "training": {**settings["training"], "total_tokens": 3_000}},
        where="recipe",
    )
    settings["phases"] = [{"name": "one"}, {"name": "two", "masking": {"rate": 0.3}}]
    recipe = parse(PretrainingRecipe, settings, where="recipe")
    assert [recipe.data_begins(index) for index in range(2)] == [0, 0]
    pretrain(recipe)
    pretrain(PretrainingRecipe(**{**vars(whole), "output": tmp_path / "whole"}))
    fills = [
        [
            row["num_tokens"]
            for row in read_metrics(tmp_path / name / "metrics.jsonl")
            if row["kind"] == "step"
        ]
        for name in ("run", "whole")
    ]
    assert fills[0] == fills[1]


def test_a_causal_phase_goes_before_a_masked_one(world: World, tmp_path: Path) -> None:
    """It sees whole texts; its evaluation is of next tokens; a run stopped in it ends alike."""
    settings = world.settings(tmp_path / "run", training__total_tokens=1_500)
    settings["phases"] = [{"name": "first", "objective": "causal"}, {"name": "second"}]
    recipe = parse(PretrainingRecipe, settings, where="recipe")
    (causal,), (masked,) = (first_steps(recipe, index, 1) for index in range(2))
    for batch in causal.micro_batches:
        ids, rows_ = batch.batch.token_ids, batch.masked_indices
        assert torch.equal(ids[rows_ + 1], batch.labels)
        assert len(rows_) == len(ids) - batch.batch.num_sequences
    assert masked.num_targets < 0.5 * causal.num_targets

    def stop(record: dict[str, Any]) -> None:
        if record["kind"] == "step" and record["step"] == 2:
            signal.raise_signal(signal.SIGTERM)

    assert pretrain(recipe, [stop]).status == "interrupted"
    assert pretrain(recipe).status == "finished"
    whole = parse(
        PretrainingRecipe, {**settings, "output": str(tmp_path / "whole")}, where="recipe"
    )
    pretrain(whole)
    weights = [
        MaskedLanguageModel.from_pretrained(each.output / "model").state_dict()
        for each in (recipe, whole)
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    ends = [row["held_out_loss"] for row in rows(whole, "evaluation") if row["phase"] == "first"]
    assert ends[-1] < ends[0]
    assert build_model(whole).encoder.is_causal is False


def test_a_ramp(world: World, tmp_path: Path) -> None:
    ramp = {"first_bins": 1, "increment_bins": 1, "tokens": 900}
    recipe = world.recipe(tmp_path / "run", batch__ramp=ramp)
    pretrain(recipe)
    tokens = [0, *(row["tokens"] for row in rows(recipe, "step"))]
    batch = recipe.phases[0].batch
    for before, row in zip(tokens, rows(recipe, "step"), strict=False):
        assert row["fill"] == pytest.approx(row["num_tokens"] / (128 * batch.bins_at(before)))
    sizes = [batch.bins_at(before) for before in tokens[:-1]]
    assert sizes[0] == 1 and sizes[-1] == 3 and sizes == sorted(sizes) and 2 in sizes


def test_a_rollback(world: World, tmp_path: Path) -> None:
    """A run that goes back to the end of its first phase equals one that never left it."""
    settings = world.settings(tmp_path / "run", training__total_tokens=1_500, dropout=0.0)
    lower = {"training": {"schedule": {"peak_learning_rate": 0.001, "warmup_tokens": 0}}}
    first, detour = {"name": "first"}, {"name": "detour"}
    settings["phases"] = [first, detour, {"name": "lower", "start_from": "first", **lower}]
    recipe = parse(PretrainingRecipe, settings, where="recipe")
    assert recipe.data_begins(2) == 0
    pretrain(recipe)
    direct = parse(
        PretrainingRecipe,
        {
            **settings,
            "output": str(tmp_path / "direct"),
            "phases": [first, {"name": "lower", **lower}],
        },
        where="recipe",
    )
    pretrain(direct)
    with_detour, without = (
        [row["loss"] for row in rows(each, "step") if row["phase"] == "lower"]
        for each in (recipe, direct)
    )
    assert with_detour[: len(without)] == pytest.approx(without, abs=1e-6)


def test_a_larger_model_grows_in_one_line(
    world: World, tmp_path: Path, finished: PretrainingRecipe
) -> None:
    sizes = {"num_layers": 4, "hidden_size": 128, "num_heads": 4, "intermediate_size": 96}
    for name, theta in (("short", 10_000.0), ("extension", 50_000.0)):
        source = str(finished.output / name)
        recipe = world.recipe(
            tmp_path / name,
            training__total_tokens=900,
            **{f"model__{key}": value for key, value in {**sizes, "grow_from": source}.items()},
        )
        if theta > 10_000:
            with pytest.warns(GrowthWarning, match="global theta is 50000"):
                model = build_model(recipe)
        else:
            model = build_model(recipe)
            assert pretrain(recipe).status == "finished"
            assert rows(recipe, "evaluation")[0]["held_out_loss"] < 6.2
        small = MaskedLanguageModel.from_pretrained(source)
        assert (model.config.hidden_size, model.config.global_theta) == (128, theta)
        middle = model.decoder_weight[:, 32:96]
        assert torch.equal(middle, small.decoder_weight)


PHASES = [{"name": "a"}, {"name": "b"}]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([{"name": "a"}, {"name": "a"}], "recipe: phases: 'a' occurs twice"),
        ([], "recipe: phases: got none"),
        ([{"name": "A b"}], "recipe: phase 'A b': name: got 'A b', expected small letters"),
        ([{"name": "model"}], "recipe: phase 'model': name: got 'model', expected"),
        ([{"name": "a", "start_from": "b"}, PHASES[1]], "recipe: phases: a: start_from: got 'b'"),
        ([{"name": "a", "tokenizer": "x"}], "recipe: phase 'a': unknown key 'tokenizer'"),
        (
            [PHASES[0], {"name": "b", "batch": {"bins_a_step": 3}}],
            "recipe: phase 'b': batch: unknown key 'bins_a_step'; did you mean",
        ),
        (
            [PHASES[0], {"name": "b", "model": {"hidden_size": 128}}],
            "recipe: phases: b: model: differs from that of a; only max_seqlen",
        ),
        (
            [{"name": "a", "model": {"global_theta": 50_000.0}}, PHASES[1]],
            "recipe: phases: b: model.global_theta: falls from 50000 to its default; set it again",
        ),
        (
            [PHASES[0], {"name": "b", "training": {"total_tokens": 500}}],
            "recipe: phase 'b': training: warmup_tokens (800)",
        ),
    ],
)
def test_wrong_phases(
    world: World, output: Path, phases: list[dict[str, Any]], message: str
) -> None:
    settings = {**world.settings(output), "phases": phases}
    with pytest.raises(SettingsError) as raised:
        parse(PretrainingRecipe, settings, where="recipe")
    assert str(raised.value).startswith(message)


def test_a_key_that_only_phases_have(world: World, output: Path) -> None:
    with pytest.raises(SettingsError, match="recipe: unknown key 'start_from'"):
        parse(PretrainingRecipe, {**world.settings(output), "start_from": "a"}, where="recipe")


def test_general_text_shows_what_is_forgotten(world: World, tmp_path: Path) -> None:
    """Its figures are of masked tokens and of both directions, in a causal phase too."""
    settings = world.settings(tmp_path / "run", training__total_tokens=900)
    settings["evaluation"]["general"] = str(world.held_out)
    settings["phases"] = [{"name": "first", "objective": "causal"}, {"name": "second"}]
    recipe = parse(PretrainingRecipe, settings, where="recipe")
    pretrain(recipe)
    found = [
        row for row in read_metrics(recipe.output / "metrics.jsonl") if row["kind"] == "evaluation"
    ]
    before, after = found[0], found[-1]
    model = build_model(recipe).eval()
    plain = {**settings, "output": str(tmp_path / "plain"), "phases": [{"name": "only"}]}
    task = Pretraining(PretrainingData.open(parse(PretrainingRecipe, plain, where="recipe")))
    with torch.no_grad():
        expected = task.evaluate(model)
    assert before["general_loss"] == pytest.approx(expected["held_out_loss"], abs=1e-6)
    assert before["general_loss"] != pytest.approx(before["held_out_loss"], abs=1e-6)
    assert after["general_loss"] == after["held_out_loss"]  # the same text, in a masked phase
    assert "on general text" in (recipe.output / "model" / "README.md").read_text()
