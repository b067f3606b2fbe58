"""Fine-tuning from rows to folders: what is learnt, delivered, resumed and swept."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.labels import labelled
from tests.tasks.labels.rows import rows_for

from modernbert.batch import PackedBatch
from modernbert.errors import InputError, ModelFolderError, RunError, SettingsError
from modernbert.inference.classifier import Classifier
from modernbert.model.heads import SequenceClassifier, SpanClassifier, TokenClassifier
from modernbert.tasks.finetune import finetune
from modernbert.tasks.tuning.job import Results
from modernbert.training.interruption import Interrupted


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("rows")
    return (
        labelled.write_rows(folder / "train.jsonl", labelled.reviews(96)),
        labelled.write_rows(folder / "dev.jsonl", labelled.reviews(40, seed=1)),
    )


@pytest.fixture(scope="module")
def finished(
    model: Path, rows: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Results]:
    output = tmp_path_factory.mktemp("runs") / "reviews"
    recipe = labelled.recipe(model, output, *rows, data__test=str(rows[1]))
    return output, finetune("classify", recipe)


def test_labels_are_learnt_and_kept(finished: tuple[Path, Results]) -> None:
    output, results = finished
    assert results.best.dev["accuracy"] > 0.9
    assert results.best.test == pytest.approx(results.best.dev, abs=1e-5)
    plain = "TF-IDF of words with logistic regression reaches accuracy 1.0000 on the dev rows"
    assert results.comparisons[0].startswith(plain)
    classifier = Classifier.from_pretrained(output / "model", precision="float32")
    assert classifier.labels == ("bad", "good")
    assert classifier("the story was lovely")[0].label == "good"
    assert classifier("a film of awful people")[0].label == "bad"


def test_the_folder_has_all_that_was_promised(finished: tuple[Path, Results]) -> None:
    output, results = finished
    assert sorted(path.name for path in (output / "model").iterdir()) == [
        "README.md",
        "config.json",
        "hashes.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    written = json.loads((output / "results.json").read_text())
    assert written["best"]["dev"] == results.best.dev
    assert sum(written["data"]["labels"].values()) == 96
    card = (output / "model" / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert f"| accuracy | dev | {results.best.dev['accuracy']:.4f} |" in card
    page = (output / "report.html").read_text()
    for part in ("Each label", "Confusion matrix", "Loss", "recipe.toml", "accuracy"):
        assert part in page
    assert not list((output / "runs").glob("*/checkpoints"))
    assert not list((output / "runs").glob("*/best"))


def test_a_second_start_finds_everything_done(
    finished: tuple[Path, Results], model: Path, rows: tuple[Path, Path]
) -> None:
    output, results = finished
    weights = (output / "model" / "model.safetensors").read_bytes()
    again = finetune("classify", labelled.recipe(model, output, *rows, data__test=str(rows[1])))
    assert again.to_mapping() == results.to_mapping()
    assert (output / "model" / "model.safetensors").read_bytes() == weights
    other = labelled.recipe(model, output, *rows, training__epochs=7)
    with pytest.raises(RunError, match=r"belongs to another recipe: training\.epochs"):
        finetune("classify", other)
    with pytest.raises(
        RunError, match=r"belongs to another recipe: the training, dev or test rows changed"
    ):
        finetune("classify", labelled.recipe(model, output, *rows))  # no test rows


def stop_at(step: int) -> Callable[[str, dict[str, Any]], None]:
    def observe(_run: str, record: dict[str, Any]) -> None:
        if record["kind"] == "step" and record["step"] == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return observe


@pytest.mark.parametrize("steps", [(5,), (8, 9, 30)])
def test_a_run_that_was_stopped_ends_with_the_same_weights(
    steps: tuple[int, ...],
    finished: tuple[Path, Results],
    model: Path,
    rows: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    recipe = labelled.recipe(model, tmp_path / "run", *rows, data__test=str(rows[1]))
    for step in steps:
        with pytest.raises(Interrupted) as stopped:
            finetune("classify", recipe, on_record=stop_at(step))
        assert stopped.value.exit_code == 143
    results = finetune("classify", recipe)
    output, unbroken = finished
    assert results.best.dev == unbroken.best.dev
    assert results.best.steps == unbroken.best.steps
    name = "model/model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (output / name).read_bytes()


def test_the_size_of_micro_batches_changes_nothing(
    finished: tuple[Path, Results], model: Path, rows: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = labelled.recipe(
        model, tmp_path / "run", *rows, data__test=str(rows[1]), training__micro_batch_tokens=20
    )
    results = finetune("classify", recipe)
    assert results.best.dev == pytest.approx(finished[1].best.dev, abs=1e-3)


def test_early_stopping_keeps_the_best(
    model: Path, rows: tuple[Path, Path], tmp_path: Path
) -> None:
    seen: list[dict[str, Any]] = []
    recipe = labelled.recipe(
        model, tmp_path / "run", *rows, training__epochs=12, training__patience=2
    )
    results = finetune("classify", recipe, on_record=lambda _, record: seen.append(record))
    evaluations = [record for record in seen if record["kind"] == "evaluation"]
    best = max(evaluations, key=lambda record: record["accuracy"])
    assert results.best.best_step == best["step"] < evaluations[-1]["step"] < 144
    assert len(evaluations) == evaluations.index(best) + 3
    broken = labelled.recipe(
        model, tmp_path / "broken", *rows, training__epochs=12, training__patience=2
    )
    with pytest.raises(Interrupted):
        finetune("classify", broken, on_record=stop_at(best["step"] + 2))
    again = finetune("classify", broken).best
    assert (again.best_step, again.steps) == (results.best.best_step, results.best.steps)


def test_seeds_and_rates_make_a_table(model: Path, rows: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = labelled.recipe(
        model,
        tmp_path / "run",
        *rows,
        training__epochs=1,
        sweep__seeds=[0, 1],
        sweep__learning_rates=[1e-5, 5e-3],
    )
    results = finetune("classify", recipe)
    assert [(c.learning_rate, len(c.outcomes)) for c in results.combinations] == [
        (1e-5, 2),
        (5e-3, 2),
    ]
    assert results.best.learning_rate == 5e-3
    for each in results.combinations:
        scores = [outcome.dev["accuracy"] for outcome in each.outcomes]
        assert each.mean("dev")["accuracy"] == pytest.approx(sum(scores) / 2)
        spread = abs(scores[0] - scores[1]) / 2**0.5
        assert each.spread("dev")["accuracy"] == pytest.approx(spread)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "±" in page


@pytest.mark.slow
def test_runs_in_processes_give_what_one_process_gives(
    model: Path, rows: tuple[Path, Path], tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"training__epochs": 1, "sweep__seeds": [0, 1]}
    names = []
    found = []
    for processes in (1, 2):
        recipe = labelled.recipe(
            model, tmp_path / str(processes), *rows, **{**changes, "sweep__processes": processes}
        )
        results = finetune(
            "classify", recipe, on_record=lambda run, record: names.append((run, record["kind"]))
        )
        found.append([outcome.dev for outcome in results.outcomes])
    assert found[0] == [pytest.approx(each, abs=1e-4) for each in found[1]]
    assert len({run for run, kind in names if kind == "end"}) == 2
    assert sum(kind == "end" for _, kind in names) == 4


def test_without_dev_rows_the_last_weights_are_kept(
    model: Path, rows: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = labelled.recipe(model, tmp_path / "run", rows[0], training__epochs=1)
    results = finetune("classify", recipe)
    assert results.best.dev == {} and results.best.best_step == results.best.steps == 12
    assert SequenceClassifier.from_pretrained(tmp_path / "run" / "model").labels == ("bad", "good")
    assert "no rows were held out" in (tmp_path / "run" / "model" / "README.md").read_text()


def test_a_handful_of_examples(model: Path, rows: tuple[Path, Path], tmp_path: Path) -> None:
    few = labelled.write_rows(tmp_path / "few.jsonl", labelled.reviews(40, seed=2))
    recipe = labelled.recipe(
        model, tmp_path / "run", few, rows[1], training__learning_rate=2e-3, training__few_shot=True
    )
    with pytest.raises(Interrupted):
        finetune("classify", recipe, on_record=stop_at(20))
    results = finetune("classify", recipe)
    assert results.best.dev["accuracy"] > 0.85
    classifier = Classifier.from_pretrained(tmp_path / "run" / "model", precision="float32")
    assert classifier("the story was lovely")[0].label == "good"
    with pytest.raises(SettingsError, match="few_shot: needs one label per text"):
        several = [{**row, "label": [row["label"]]} for row in labelled.reviews(9)]
        lists = labelled.write_rows(tmp_path / "lists.jsonl", several)
        finetune(
            "classify", labelled.recipe(model, tmp_path / "other", lists, training__few_shot=True)
        )


def test_a_metric_that_there_is_not(model: Path, rows: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = labelled.recipe(model, tmp_path / "run", *rows, training__metric="f2")
    with pytest.raises(InputError, match=r"^metric: got 'f2', expected one of accuracy, f1, "):
        finetune("classify", recipe)


KINDS: dict[str, tuple[Any, str]] = {
    "classify": (SequenceClassifier, "SequenceClassification"),
    "regress": (SequenceClassifier, "SequenceClassification"),
    "tag": (TokenClassifier, "TokenClassification"),
    "answer": (SpanClassifier, "QuestionAnswering"),
}


@pytest.mark.parametrize("verb", KINDS)
def test_transformers_loads_the_result_with_equal_logits(
    verb: Any, model: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    train = labelled.write_rows(tmp_path / "train.jsonl", rows_for(verb))
    recipe = labelled.recipe(model, tmp_path / "run", train, train, verb=verb, training__epochs=1)
    finetune(verb, recipe)
    folder = tmp_path / "run" / "model"
    cls, name = KINDS[verb]
    own = cls.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = getattr(transformers, f"AutoModelFor{name}").from_pretrained(folder).eval()
    texts = ["the film was lovely", "a dull story of seven people"]
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        output = theirs(**inputs)
        batch = PackedBatch.from_padded(inputs["input_ids"], inputs["attention_mask"])
        logits = own(batch)
    if verb == "answer":
        expected = torch.stack([output.start_logits, output.end_logits], dim=-1)
    else:
        expected = output.logits
    if verb in ("tag", "answer"):
        present = inputs["attention_mask"].bool()
        logits, expected = batch.to_padded(logits)[present], expected[present]
    assert (logits - expected).abs().max() < 1e-5
    # And back: what transformers saves is read here.
    theirs.save_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        again = cls.from_pretrained(tmp_path / "theirs")(batch)
    again = batch.to_padded(again)[present] if verb in ("tag", "answer") else again
    assert (again - logits).abs().max() < 1e-5


def test_a_folder_of_another_kind_is_refused_where_it_is_used(
    finished: tuple[Path, Results],
) -> None:
    with pytest.raises(ModelFolderError, match="expected a ModernBertForTokenClassification"):
        TokenClassifier.from_pretrained(finished[0] / "model")
