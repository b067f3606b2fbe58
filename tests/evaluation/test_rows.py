"""A fine-tuned model on labelled rows, without a suite: the scores of its own fine-tuning."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.conftest import rows, write

from modernbert.errors import InputError
from modernbert.evaluation.rows import score_rows
from modernbert.evaluation.run import run_suite
from modernbert.evaluation.suite import suite_of_folder
from modernbert.tasks.finetune import finetune


@pytest.fixture(scope="module")
def tuned(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("tuned")
    paths = {name: str(data / "first" / f"{name}.jsonl") for name in ("train", "dev")}
    training = {"epochs": 1, "precision": "float32"}
    recipe = {"model": str(model), "output": str(folder), "data": paths, "training": training}
    return folder / "model", finetune("classify", recipe).best.dev


def test_scores_are_those_of_the_training(tuned: tuple[Path, Any], data: Path) -> None:
    folder, scores = tuned
    found = score_rows(str(folder), str(data / "first" / "dev.jsonl"), {})
    assert {name: found.scores[name] for name in scores} == pytest.approx(dict(scores), abs=1e-4)
    assert found.job.verb == "classify" and "12 examples" in found.job.splits["dev"]


def test_labels_are_the_models_though_the_rows_have_one(
    tuned: tuple[Path, Any], tmp_path: Path
) -> None:
    yes = [row for row in rows(12) if row["label"] == "yes"]
    write(tmp_path / "yes.jsonl", yes)
    found = score_rows(str(tuned[0]), str(tmp_path / "yes.jsonl"), {})
    assert json.loads(json.dumps(found.to_mapping()))["scores"]["loss"] > 0
    write(tmp_path / "other.jsonl", [{"text": "a", "label": "perhaps"}])
    with pytest.raises(InputError, match="label 'perhaps' does not occur"):
        score_rows(str(tuned[0]), str(tmp_path / "other.jsonl"), {})


def test_a_masked_model_has_no_scores_on_rows(model: Path, data: Path) -> None:
    with pytest.raises(InputError, match="which has no scores on rows; fine-tune it first"):
        score_rows(str(model), str(data / "first" / "dev.jsonl"), {})


@pytest.mark.parametrize("verb", ["rerank", "retrieve"])
def test_rankings_have_a_page_and_no_calibration(model: Path, tmp_path: Path, verb: str) -> None:
    train = [
        {"query": row["label"], "positive": row["text"], "negative": f"{row['text']} not"}
        for row in rows(8)
    ]
    write(tmp_path / "pairs.jsonl", train)
    pairs = str(tmp_path / "pairs.jsonl")
    recipe = {"model": str(model), "output": str(tmp_path / "run"), "data": {"train": pairs}}
    finetune(verb, recipe)
    found = score_rows(str(tmp_path / "run" / "model"), pairs, {})
    page = found.write(tmp_path / "page").read_text()
    assert found.scores["ndcg@10"] > 0 and f"modernbert score: {verb}" in page
    with pytest.raises(InputError, match="only labels are calibrated"):
        score_rows(str(tmp_path / "run" / "model"), pairs, {}, calibrate=True)


def test_a_folder_of_judged_texts_is_a_suite_of_one_task(
    model: Path, data: Path, tmp_path: Path
) -> None:
    suite = suite_of_folder(data / "judged", "test")
    results = run_suite(suite, str(model), tmp_path / "out", data=Path())
    assert [task["name"] for task in results["tasks"]] == ["judged"]
    assert 0 <= results["average"] <= 1
