"""Pretraining: what a step sees, what a run leaves, and what is refused before it begins."""

import json
import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.full_disk import largest_file
from tests.rounding import assert_equal_but_for_rounding, terms_of_encoder
from tests.tasks.pretraining.small import World, texts, write_shards

from modernbert.data.collate import MaskedBatch
from modernbert.data.shards import ShardFolder, ShardWriter
from modernbert.errors import (
    ConfigError,
    ModelFolderError,
    ModernBertError,
    RunError,
    ShardError,
    TokenizerError,
)
from modernbert.model.heads import MaskedLanguageModel
from modernbert.report.history import count_tokens, unigram_baseline
from modernbert.settings import load, parse
from modernbert.tasks.pretraining import pretrain as pretraining
from modernbert.tasks.pretraining.data import PretrainingData
from modernbert.tasks.pretraining.pretrain import (
    Pretraining,
    build_model,
    held_out_batches,
    pretrain,
)
from modernbert.tasks.pretraining.recipe import PretrainingRecipe
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.training.log import read_metrics
from modernbert.training.trainer import Phase, Progress, Step, Trainer

LONG = {"training__total_tokens": 60_000, "dropout": 0.0, "training__evaluate_every_steps": 50}


def rows(output: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_metrics(output / "metrics.jsonl") if row["kind"] == kind]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def task_of(recipe: PretrainingRecipe) -> Pretraining:
    return Pretraining(PretrainingData.open(recipe))


def first_steps(
    recipe: PretrainingRecipe, number: int, start: Progress | None = None
) -> list[Step]:
    steps = task_of(recipe).steps(start or Progress())
    try:
        return list(islice(steps, number))
    finally:
        steps.close()


def test_filling_up_gives_one_shape_and_the_same_loss(world: World, tmp_path: Path) -> None:
    """Also where a step's last micro-batch has fewer bins; dropout included."""
    recipe = world.recipe(tmp_path / "run", dropout=0.1)
    data, model = PretrainingData.open(recipe), build_model(recipe)
    losses: list[list[float]] = []
    for fill_up in (False, True):
        task = Pretraining(data, fill_up=fill_up)
        batches = [
            each for step in islice(task.steps(Progress()), 3) for each in step.micro_batches
        ]
        shapes = {batch.batch.total_tokens for batch in batches}
        assert (shapes == {256}) == fill_up
        losses.append([float(task.loss(model, batch, step=1).detach()) for batch in batches])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def num_tokens(batches: Sequence[MaskedBatch]) -> int:
    return sum(batch.batch.total_tokens for batch in batches)


def num_maskable(batches: Sequence[MaskedBatch]) -> int:
    """Tokens that are no [CLS] or [SEP]."""
    return num_tokens(batches) - sum(2 * batch.batch.num_sequences for batch in batches)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, world: World) -> PretrainingRecipe:
    """A run that has had time to learn something."""
    recipe = world.recipe(tmp_path_factory.mktemp("finished") / "run", **LONG)
    assert pretrain(recipe).status == "finished"
    return recipe


def test_a_run_learns_more_than_frequencies(finished: PretrainingRecipe) -> None:
    folders = [ShardFolder.open(source.shards) for source in finished.phases[0].sources]
    counts = count_tokens((s.tokens for f in folders for s in f.shards), folders[0].vocab_size)
    targets = np.concatenate([each.labels.numpy() for each in held_out_batches(finished)])
    baseline = unigram_baseline(counts, targets)
    first, *_, last = rows(finished.output, "evaluation")
    assert first["held_out_loss"] == pytest.approx(math.log(448), abs=0.2)
    assert last["held_out_loss"] < baseline.loss - 1
    assert last["held_out_accuracy"] > baseline.accuracy + 0.3


def test_a_run_leaves_its_records_and_a_model(finished: PretrainingRecipe) -> None:
    steps = rows(finished.output, "step")
    assert [row["step"] for row in steps] == list(range(1, len(steps) + 1))
    assert all(0 < row["fill"] <= 1 for row in steps)
    assert steps[-1]["tokens"] >= 60_000 > steps[-2]["tokens"]
    assert load(PretrainingRecipe, finished.output / "recipe.toml") == finished
    assert list((finished.output / "tensorboard").iterdir())
    model = MaskedLanguageModel.from_pretrained(finished.output / "model")
    tokenizer = Tokenizer.from_pretrained(finished.output / "model")
    assert model.config.vocab_size == tokenizer.vocab_size
    assert model.config.mask_token_id == tokenizer.mask_token_id
    assert tokenizer.fingerprint == Tokenizer.from_pretrained(finished.tokenizer).fingerprint
    assert tokenizer.model_max_length == model.config.max_seqlen == 48


def test_the_model_is_the_one_that_was_evaluated(finished: PretrainingRecipe) -> None:
    model = MaskedLanguageModel.from_pretrained(finished.output / "model").eval()
    with torch.no_grad():
        figures = task_of(finished).evaluate(model)
    last = rows(finished.output, "evaluation")[-1]
    assert figures["held_out_loss"] == pytest.approx(last["held_out_loss"], abs=1e-6)
    assert figures["held_out_accuracy"] == last["held_out_accuracy"]


def test_evaluation_is_the_plain_mean_over_masked_tokens(finished: PretrainingRecipe) -> None:
    model = MaskedLanguageModel.from_pretrained(finished.output / "model").eval()
    losses, hits = [], []
    with torch.no_grad():
        for batch in held_out_batches(finished):
            logits = model(batch.batch)[batch.masked_indices]
            losses += torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none")
            hits += logits.argmax(1) == batch.labels
        figures = task_of(finished).evaluate(model)
    assert figures["held_out_loss"] == pytest.approx(float(torch.stack(losses).mean()), abs=1e-5)
    assert figures["held_out_accuracy"] == pytest.approx(float(torch.stack(hits).float().mean()))


def test_training_masks_30_percent_and_evaluation_15(world: World, output: Path) -> None:
    recipe = world.recipe(output, evaluation={"shards": str(world.held_out)})
    training = [batch for step in first_steps(recipe, 40) for batch in step.micro_batches]
    evaluation = list(held_out_batches(recipe))
    for batches, rate in ((training, 0.30), (evaluation, 0.15)):
        masked, tokens = sum(batch.num_masked for batch in batches), num_maskable(batches)
        allowed = 4 * math.sqrt(rate * (1 - rate) / tokens)
        assert masked / tokens == pytest.approx(rate, abs=allowed)
        mask_id = build_model(recipe).config.mask_token_id
        inserted = sum(int((b.batch.token_ids == mask_id).sum()) for b in batches)
        assert inserted / masked == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / masked))


def test_the_rate_of_evaluation_is_not_that_of_training(world: World, output: Path) -> None:
    plain, heavy = (
        list(held_out_batches(world.recipe(output, masking={"rate": rate}))) for rate in (0.3, 0.9)
    )
    assert [b.masked_indices.tolist() for b in plain] == [b.masked_indices.tolist() for b in heavy]


def test_steps_are_counted_as_they_are(world: World, output: Path) -> None:
    for step in first_steps(world.recipe(output), 5):
        assert [len(batch.bin_ids) for batch in step.micro_batches] == [2, 1]
        assert step.num_tokens == num_tokens(step.micro_batches)
        assert step.num_targets == sum(batch.num_masked for batch in step.micro_batches)
        assert step.fill == pytest.approx(step.num_tokens / (3 * 128))


def test_steps_go_on_from_any_place(world: World, output: Path) -> None:
    recipe = world.recipe(output)
    whole = first_steps(recipe, 6)
    rest = first_steps(recipe, 3, whole[2].progress)
    assert [step.progress for step in rest] == [step.progress for step in whole[3:]]
    for ours, theirs in zip(rest, whole[3:], strict=True):
        for mine, other in zip(ours.micro_batches, theirs.micro_batches, strict=True):
            assert mine.bin_ids == other.bin_ids
            assert torch.equal(mine.batch.token_ids, other.batch.token_ids)
            assert torch.equal(mine.labels, other.labels)


def terms_of_gradients(recipe: PretrainingRecipe, step: Step) -> int:
    """What is added up there and back, and over the tokens of a step."""
    config = build_model(recipe).config
    return 3 * terms_of_encoder(config, config.max_seqlen) + config.vocab_size + step.num_tokens


def gradients(recipe: PretrainingRecipe, step: Step) -> tuple[float, torch.Tensor]:
    """The loss of a step, and its gradients in one row."""
    model, task = build_model(recipe), task_of(recipe)
    with torch.no_grad():  # larger weights, so that every part of the model matters
        for parameter in model.parameters():
            parameter.mul_(4) if parameter.ndim > 1 else None
    phase = Phase(name="pretraining", task=task, settings=recipe.phases[0].training)
    trainer = Trainer(model, [phase], recipe.output)
    loss, _, _ = trainer._gradients(step)
    found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return float(loss), torch.cat(found)


def test_micro_batches_equal_one_batch(world: World, output: Path) -> None:
    """Dropout included, and with a micro-batch that has no masked token among them."""
    changes = {"dropout": 0.3, "batch__bins_per_step": 8}
    one = world.recipe(output, **changes, batch__bins_per_micro_batch=8)
    many = world.recipe(output, **changes, batch__bins_per_micro_batch=1)
    (whole,), (parted,) = first_steps(one, 1), first_steps(many, 1)
    assert (len(whole.micro_batches), len(parted.micro_batches)) == (1, 8)
    (nothing_masked, *_), *_ = (
        step.micro_batches for step in first_steps(world.recipe(output, masking={"rate": 1e-9}), 1)
    )
    assert nothing_masked.num_masked == 0
    with_an_empty_one = Step(
        micro_batches=[*parted.micro_batches[:3], nothing_masked, *parted.micro_batches[3:]],
        progress=parted.progress,
        num_targets=parted.num_targets,
        num_tokens=parted.num_tokens,
        fill=parted.fill,
    )
    loss, expected = gradients(one, whole)
    num_terms = terms_of_gradients(one, whole)
    assert expected.abs().max() > 0.01
    for recipe, step in ((many, parted), (many, with_an_empty_one)):
        other_loss, other = gradients(recipe, step)
        assert_equal_but_for_rounding(other_loss, loss, num_terms=num_terms)
        assert_equal_but_for_rounding(other, expected, num_terms=num_terms)


def test_logits_in_chunks_give_the_same_gradients(world: World, output: Path) -> None:
    small = world.recipe(output, max_logits_bytes=4 * 448 * 5)
    (step,) = first_steps(small, 1)
    loss, expected = gradients(world.recipe(output), step)
    num_terms = terms_of_gradients(small, step)
    other_loss, other = gradients(small, step)
    assert_equal_but_for_rounding(other_loss, loss, num_terms=num_terms)
    assert_equal_but_for_rounding(other, expected, num_terms=num_terms)


def losses(recipe: PretrainingRecipe, *, step: int) -> list[float]:
    (data,) = first_steps(recipe, 1)
    model, task = build_model(recipe), task_of(recipe)
    return [task.loss(model, batch, step=step).item() for batch in data.micro_batches]


def test_dropout_is_of_the_step_and_the_seed(world: World, output: Path) -> None:
    recipe = world.recipe(output, dropout=0.5)
    assert losses(recipe, step=1) == losses(recipe, step=1)
    assert losses(recipe, step=1) != losses(recipe, step=2)
    assert losses(recipe, step=1) != losses(
        world.recipe(output, dropout=0.5, training__seed=1), step=1
    )
    without = world.recipe(output, dropout=0.0)
    assert losses(without, step=1) == losses(without, step=2) != losses(recipe, step=1)


def test_evaluation_has_no_dropout(world: World, output: Path) -> None:
    figures = [
        task_of(recipe).evaluate(build_model(recipe))
        for recipe in (world.recipe(output, dropout=0.5), world.recipe(output, dropout=0.0))
    ]
    assert figures[0] == figures[1]


def test_no_evaluation(tmp_path: Path, world: World) -> None:
    settings = world.settings(tmp_path / "run", training__total_tokens=900)
    del settings["evaluation"]
    recipe = parse(PretrainingRecipe, settings, where="recipe")
    assert list(held_out_batches(recipe)) == []
    assert pretrain(recipe).evaluation == {}
    assert rows(recipe.output, "evaluation") == []


def test_first_weights_come_from_the_recipe_alone(world: World, output: Path) -> None:
    first, again, other = (
        build_model(world.recipe(output, model__seed=seed)).decoder_weight for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_going_on_from_a_model(tmp_path: Path, world: World, finished: PretrainingRecipe) -> None:
    start = finished.output / "model"
    longer = {"start": str(start), "max_seqlen": 64, "global_theta": 20_000.0}
    recipe = world.recipe(
        tmp_path / "run", model=longer, packing__max_seqlen=64, training__total_tokens=900
    )
    begun, model = MaskedLanguageModel.from_pretrained(start), build_model(recipe)
    for name, weight in begun.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])
    assert (model.config.max_seqlen, model.config.global_theta) == (64, 20_000.0)
    assert pretrain(recipe).status == "finished"
    first = rows(recipe.output, "evaluation")[0]
    assert first["held_out_loss"] < 4  # before the first step; an untrained one has 6
    trained = MaskedLanguageModel.from_pretrained(recipe.output / "model")
    assert trained.config == model.config
    assert not torch.equal(trained.decoder_weight, begun.decoder_weight)


def test_a_finished_run_is_left_alone(finished: PretrainingRecipe) -> None:
    kept = ("metrics.jsonl", "recipe.toml", "run.json", "model/model.safetensors")
    before = [(finished.output / name).stat().st_mtime_ns for name in kept]
    assert pretrain(finished).status == "already_finished"
    assert [(finished.output / name).stat().st_mtime_ns for name in kept] == before


def test_a_finished_run_gives_its_model_again(tmp_path: Path, world: World) -> None:
    recipe = world.recipe(tmp_path / "run")
    pretrain(recipe)
    model = files(recipe.output / "model")
    for path in (recipe.output / "model").iterdir():
        path.unlink()
    (recipe.output / "model").rmdir()
    assert pretrain(recipe).status == "already_finished"
    assert files(recipe.output / "model") == model


def test_a_full_disk_at_the_end(tmp_path: Path, world: World, monkeypatch: Any) -> None:
    recipe = world.recipe(tmp_path / "run")
    save = MaskedLanguageModel.save_pretrained

    def save_on_a_full_disk(model: MaskedLanguageModel, folder: Path) -> None:
        with largest_file(10_000):
            save(model, folder)

    with monkeypatch.context() as patch:
        patch.setattr(MaskedLanguageModel, "save_pretrained", save_on_a_full_disk)
        with pytest.raises(ModernBertError, match="File too large"):
            pretrain(recipe)
    assert not (recipe.output / "model").exists()
    assert pretrain(recipe).status == "already_finished"
    assert MaskedLanguageModel.from_pretrained(recipe.output / "model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"dropout": 0.1}, "dropout is 0.0 there and 0.1 here"),
        ({"model__window": 9}, "model.window is 8 there and 9 here"),
        ({"model__seed": 5}, "first_weights.seed is 0 there and 5 here"),
        ({"masking": {"rate": 0.2}}, "masking.rate is 0.3 there and 0.2 here"),
        ({"batch__bins_per_step": 4}, "bins_per_step is 3 there and 4 here"),
        ({"packing__bin_tokens": 256}, "packing.bin_tokens is 128 there and 256 here"),
        ({"training__total_tokens": 70_000}, "training.total_tokens is 60000 there and 70000"),
    ],
)
def test_a_run_of_another_recipe(
    finished: PretrainingRecipe, world: World, changes: dict[str, Any], message: str
) -> None:
    recipe_file = finished.output / "recipe.toml"
    before = recipe_file.read_bytes()
    other = world.recipe(finished.output, **{**LONG, **changes})
    with pytest.raises(RunError, match=r"belongs to another recipe: .*; choose another") as raised:
        pretrain(other)
    assert message in str(raised.value)
    assert recipe_file.read_bytes() == before


def test_other_data_is_another_run(finished: PretrainingRecipe, world: World) -> None:
    settings = world.settings(finished.output, **LONG)
    settings["sources"][1]["weight"] = 3.0
    with pytest.raises(RunError, match=r"sources\.1\.weight is 1\.0 there and 3\.0 here"):
        pretrain(parse(PretrainingRecipe, settings, where="recipe"))
    settings["sources"][1] = {"shards": str(world.held_out)}
    with pytest.raises(RunError, match=r"sources\.1\.fingerprint changed since the run began"):
        pretrain(parse(PretrainingRecipe, settings, where="recipe"))


def test_what_leaves_the_weights_alone_may_change(
    finished: PretrainingRecipe, world: World
) -> None:
    changes = {
        **LONG,
        "batch__bins_per_micro_batch": 3,
        "max_logits_bytes": 10_000,
        "evaluation": {"shards": str(world.held_out), "max_tokens": 500, "seed": 3},
        "training__evaluate_every_steps": 7,
    }
    assert pretrain(world.recipe(finished.output, **changes)).status == "already_finished"


def test_a_model_folder_of_no_run(tmp_path: Path, world: World) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(RunError, match=r"model: exists and does not belong to a run"):
        pretrain(world.recipe(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_shards_of_another_tokenizer(tmp_path: Path, world: World) -> None:
    tokenizer = Tokenizer.from_pretrained(world.tokenizer)
    documents = list(texts(5, seed=1))
    special = ShardFolder.open(world.held_out).special_token_ids
    for number, changes in enumerate(
        (
            {"tokenizer_fingerprint": "of another"},
            {"vocab_size": tokenizer.vocab_size + 1},
            {"special_token_ids": type(special)(**{**vars(special), "mask": 0})},
        )
    ):
        folder = tmp_path / str(number)
        write_shards(folder, tokenizer, documents, **changes)
        for named in ({"sources": [{"shards": str(folder)}]}, {"evaluation__shards": str(folder)}):
            with pytest.raises(ShardError, match=rf"{number}: made with another tokenizer than "):
                pretrain(world.recipe(tmp_path / "run", **named))
    assert not (tmp_path / "run").exists()


def shards_with_an_unknown_id(folder: Path, world: World) -> ShardFolder:
    """Shards whose manifest is true to its files, but not to the vocabulary."""
    tokenizer = Tokenizer.from_pretrained(world.tokenizer)
    with ShardWriter(
        folder,
        vocab_size=tokenizer.vocab_size + 10,
        special_token_ids=ShardFolder.open(world.held_out).special_token_ids,
        tokenizer_fingerprint=tokenizer.fingerprint,
    ) as writer:
        for token_ids in tokenizer.encode_batch(texts(50, seed=1), special_tokens=False):
            writer.add(token_ids)
        writer.add([5, 6, tokenizer.vocab_size + 3, 7])
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["vocab_size"] = tokenizer.vocab_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return ShardFolder.open(folder)


def test_an_unknown_token_id_in_shards(tmp_path: Path, world: World) -> None:
    folder = shards_with_an_unknown_id(tmp_path / "shards", world)
    name = folder.shards[0].record.tokens.name
    message = rf"shards/{name}: token id 451 is outside the vocabulary of 448"
    with pytest.raises(ShardError, match=message):
        pretrain(world.recipe(tmp_path / "run", sources=[{"shards": str(folder.path)}]))
    evaluation = {"shards": str(folder.path)}
    with pytest.raises(ShardError, match=message):
        pretrain(world.recipe(tmp_path / "other", evaluation=evaluation))


def test_a_flipped_byte_in_a_shard(tmp_path: Path, world: World) -> None:
    folder = write_shards(
        tmp_path / "shards", Tokenizer.from_pretrained(world.tokenizer), list(texts(50, seed=1))
    )
    file = folder.path / folder.shards[0].record.tokens.name
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(content)
    with pytest.raises(ShardError, match=rf"{file.name}: its bytes have changed"):
        pretrain(world.recipe(tmp_path / "run", sources=[{"shards": str(folder.path)}]))


def test_too_little_to_evaluate_on(tmp_path: Path, world: World) -> None:
    tokenizer = Tokenizer.from_pretrained(world.tokenizer)
    write_shards(tmp_path / "tiny", tokenizer, ["a"])
    recipe = world.recipe(tmp_path / "run", evaluation={"shards": str(tmp_path / "tiny")})
    with pytest.raises(ShardError, match="tiny: too small, as no token is masked"):
        pretrain(recipe)


def test_sequences_longer_than_the_model_reads(world: World, output: Path) -> None:
    recipe = world.recipe(output, model__max_seqlen=32)
    with pytest.raises(ConfigError, match=r"packing\.max_seqlen: got 48, but .* made for 32"):
        pretrain(recipe)


def test_a_start_with_another_vocabulary(
    tmp_path: Path, world: World, finished: PretrainingRecipe, output: Path
) -> None:
    config = MaskedLanguageModel.from_pretrained(finished.output / "model").config
    for name, value in (("vocab_size", 512), ("mask_token_id", 3)):
        changed = type(config)(**{**vars(config), name: value})
        model = MaskedLanguageModel(changed)
        model.save_pretrained(tmp_path / name)
        recipe = world.recipe(output, model={"start": str(tmp_path / name)})
        with pytest.raises(ConfigError, match=rf"{name} is {value}, but \d+ in the recipe's"):
            pretrain(recipe)


def test_folders_that_are_not_there(world: World, output: Path) -> None:
    nowhere = str(world.path / "nowhere")
    for changes, error in (
        ({"tokenizer": nowhere}, TokenizerError),
        ({"sources": [{"shards": nowhere}]}, ShardError),
        ({"evaluation": {"shards": nowhere}}, ShardError),
        ({"model": {"start": nowhere}}, ModelFolderError),
    ):
        with pytest.raises(error, match="nowhere: no"):
            pretrain(world.recipe(output, **changes))
    assert not output.exists()


def test_the_module_is_a_task(world: World, output: Path) -> None:
    """The docstring's list of files is the list of names in the code."""
    assert pretraining.__doc__
    for name in (pretraining.MODEL_FOLDER, pretraining.RECIPE_FILE):
        assert f"    {name}" in pretraining.__doc__
    assert isinstance(task_of(world.recipe(output)).data, PretrainingData)
