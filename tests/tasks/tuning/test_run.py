"""The best weights: which they are, when it is of no use to go on, and what a resume remembers."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.labels import labelled

from modernbert.errors import InputError, TrainingError
from modernbert.model.heads import MaskedLanguageModel
from modernbert.tasks.tuning.run import BestModel


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MaskedLanguageModel:
    folder = labelled.write_model(tmp_path_factory.mktemp("model"))
    return MaskedLanguageModel.from_pretrained(folder)


def test_the_first_of_equal_scores_is_the_best(tmp_path: Path, model: MaskedLanguageModel) -> None:
    kept: list[Any] = []
    best = BestModel(tmp_path, "accuracy", 2, kept.append)
    assert best.best_step is None and not best.out_of_patience()
    for step, score in ((1, 0.5), (2, 0.7), (3, 0.7)):
        best.evaluated(model, step, {"accuracy": score, "loss": 1.0})
    assert best.best_step == 2 and best.best_figures["accuracy"] == 0.7
    assert not best.out_of_patience()
    best.evaluated(model, 4, {"accuracy": 0.6, "loss": 1.0})
    assert best.out_of_patience()
    assert kept == [model, model]  # after the first and the second step


def test_a_loss_is_best_when_low(tmp_path: Path, model: MaskedLanguageModel) -> None:
    best = BestModel(tmp_path, "loss", None, lambda _: None)
    for step, loss in ((1, 0.9), (2, 0.4), (3, 0.5)):
        best.evaluated(model, step, {"loss": loss})
    assert best.best_step == 2 and not best.out_of_patience()


def test_a_resume_remembers_what_was_found(tmp_path: Path) -> None:
    rows = [
        {"kind": "evaluation", "step": 5, "phase": "x", "tokens": 9, "seconds": 1, "f1": 0.4},
        {"kind": "step", "step": 6, "loss": 1.0},
        {"kind": "evaluation", "step": 10, "phase": "x", "tokens": 18, "seconds": 1, "f1": 0.3},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text)
    best = BestModel(tmp_path, "f1", 1, lambda _: None)
    best.restore(12)
    assert best.best_step == 5 and best.best_figures == {"f1": 0.4}
    assert best.out_of_patience()
    best.restore(9)  # the second one is evaluated again
    assert best.best_step == 5 and not best.out_of_patience()


def test_scores_that_choose_nothing(tmp_path: Path, model: MaskedLanguageModel) -> None:
    best = BestModel(tmp_path, "f1", None, lambda _: None)
    with pytest.raises(InputError, match=r"^metric: got 'f1', expected one of accuracy, loss"):
        best.evaluated(model, 1, {"accuracy": 0.5, "loss": 1.0})
    with pytest.raises(TrainingError, match=r"^step 3: f1 is NaN; use a lower learning rate"):
        best.evaluated(model, 3, {"f1": float("nan")})
