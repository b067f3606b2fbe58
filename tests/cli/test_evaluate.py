"""`score`: scores, a page, and a calibration that is stored with the model and used."""

import importlib.util
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small_models import config_for

from modernbert.inference.classifier import Classifier
from modernbert.model.heads import ClassifierSettings, ProblemType, SequenceClassifier
from modernbert.model.initialize import initialize
from modernbert.tokenizer.tokenizer import Tokenizer

Run = Callable[..., Any]
LABELS = ("odd", "even", "big")


def write_model(folder: Path, tokenizer_folder: Path, problem: ProblemType) -> Path:
    """A classifier that was never trained and is far too sure."""
    tokenizer = Tokenizer.from_pretrained(tokenizer_folder)
    config = config_for(tokenizer, max_seqlen=48)
    model = SequenceClassifier(config, ClassifierSettings(labels=LABELS, problem=problem))
    initialize(model, seed=0)
    with torch.no_grad():
        model.classifier.weight.mul_(100)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path: Path, problem: str) -> Path:
    choose = random.Random(0)
    rows = []
    for number in range(60):
        labels = ["odd" if number % 2 else "even", *(["big"] if choose.random() < 0.4 else [])]
        label = labels if problem == "multi_label" else labels[0]
        rows.append({"text": f"the square of number {number}", "label": label})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_scores_go_to_stdout_and_to_a_page(
    run: Run, tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = write_model(tmp_path / "model", tokenizer_folder, "single_label")
    rows = write_rows(tmp_path / "rows.jsonl", "single_label")
    result = run("score", model, rows)
    assert result.exit_code == 0, result.stderr
    scores = dict(line.split() for line in result.stdout.splitlines())
    assert 0 <= float(scores["accuracy"]) <= 1 and float(scores["calibration_error"]) > 0.1
    page = (tmp_path / "runs" / "score-rows" / "report.html").read_text()
    for heading in ("Each label", "Confusion matrix", "Calibration", "Where it is most wrong"):
        assert heading in page
    results = json.loads((tmp_path / "runs" / "score-rows" / "results.json").read_text())
    assert results["scores"]["accuracy"] == pytest.approx(float(scores["accuracy"]), abs=1e-4)
    assert "calibration" not in json.loads((model / "config.json").read_text())


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_a_calibration_is_stored_and_used(
    run: Run, tmp_path: Path, tokenizer_folder: Path, problem: ProblemType
) -> None:
    model = write_model(tmp_path / "model", tokenizer_folder, problem)
    rows = write_rows(tmp_path / "rows.jsonl", problem)
    before = json.loads(run("score", model, rows, "-o", tmp_path / "a", "--json").stdout)
    found = json.loads(
        run("score", model, rows, "-o", tmp_path / "b", "--calibrate", "--json").stdout
    )
    assert found["scores"]["loss"] < before["scores"]["loss"]
    assert found["scores"]["calibration_error"] < before["scores"]["calibration_error"]
    temperature = found["calibration"]["temperature"]
    stored = json.loads((model / "config.json").read_text())["calibration"]
    assert stored["temperature"] == temperature > 1
    again = json.loads(run("score", model, rows, "-o", tmp_path / "c", "--json").stdout)
    assert again["scores"] == pytest.approx(found["scores"])
    assert run("verify", model).exit_code == 0

    classifier = Classifier.from_pretrained(model, precision="float32")
    (logits,) = next(classifier.logits(["the square of number 3"]))
    labels = classifier("the square of number 3")
    scaled = logits / temperature
    expected = scaled.sigmoid() if problem == "multi_label" else scaled.softmax(0)
    assert [each.score for each in labels] == pytest.approx(sorted(expected.tolist())[::-1])
    if problem == "multi_label":
        assert found["scores"]["f1_macro"] >= before["scores"]["f1_macro"]
        thresholds = dict(zip(LABELS, stored["thresholds"], strict=True))
        assert [each.is_chosen for each in labels] == [
            each.score >= thresholds[each.label] for each in labels
        ]
    else:
        assert [each.is_chosen for each in labels] == [None] * 3 and "thresholds" not in stored


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
@pytest.mark.filterwarnings("ignore")
def test_transformers_loads_a_calibrated_model_as_before(
    run: Run, tmp_path: Path, tokenizer_folder: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    model = write_model(tmp_path / "model", tokenizer_folder, "multi_label")
    ids = torch.tensor([[1, 9, 8, 2]])
    with torch.no_grad():
        before = AutoModelForSequenceClassification.from_pretrained(model)(ids).logits
        rows = write_rows(tmp_path / "rows.jsonl", "multi_label")
        assert run("score", model, rows, "-o", tmp_path / "a", "--calibrate").exit_code == 0
        after = AutoModelForSequenceClassification.from_pretrained(model)(ids).logits
    assert torch.equal(before, after)


def test_what_cannot_be_calibrated_is_refused(
    run: Run, tmp_path: Path, tokenizer_folder: Path
) -> None:
    model = write_model(tmp_path / "model", tokenizer_folder, "single_label")
    path = model / "config.json"
    config = json.loads(path.read_text())
    for calibration, message in [
        ({"temperature": 0}, "temperature: got 0.0, expected a number above 0"),
        ({"thresholds": [0.5]}, "thresholds: got 1, expected one for each of the 3 labels"),
        ([], "calibration: expected an object"),
    ]:
        path.write_text(json.dumps({**config, "calibration": calibration}))
        result = run("classify", model, "a text")
        assert result.exit_code == 2 and message in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--split", "dev"), "--split: has no effect on rows"),
        (("--task", "mnli", "--text", "text"), "--task: has no effect on rows"),
        (("--output", "there"), "--output: has no effect on rows"),
    ],
)
def test_evaluate_refuses_options_without_effect(
    run: Run, tmp_path: Path, tokenizer_folder: Path, options: tuple[str, ...], message: str
) -> None:
    model = write_model(tmp_path / "model", tokenizer_folder, "single_label")
    rows = write_rows(tmp_path / "rows.jsonl", "single_label")
    result = run("evaluate", model, rows, *options)
    assert result.exit_code == 2 and message in result.stderr


def test_evaluate_refuses_columns_for_a_suite(
    run: Run, tmp_path: Path, tokenizer_folder: Path
) -> None:
    model = write_model(tmp_path / "model", tokenizer_folder, "single_label")
    result = run("evaluate", model, "glue", "--label", "label")
    assert result.exit_code == 2 and "--label: has no effect on a suite" in result.stderr
