"""A run: the model it starts from, what is frozen, each layer's rate, and its best weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.labels import labelled

from modernbert.errors import InputError, SettingsError, TrainingError
from modernbert.model.encoder import Encoder
from modernbert.model.heads import (
    ClassifierSettings,
    MaskedLanguageModel,
    SequenceClassifier,
    TokenClassifier,
)
from modernbert.model.initialize import first_model
from modernbert.tasks.tuning.recipe import RunSettings
from modernbert.tasks.tuning.run import BestModel, freeze, layer_groups

AB = ClassifierSettings(labels=("a", "b"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled.write_model(tmp_path_factory.mktemp("model"))


def classifier(folder: Path, **changes: Any) -> SequenceClassifier:
    options = {"settings": AB, "seed": 0, **changes}
    return first_model(SequenceClassifier, folder_or_hub_id=str(folder), **options)


def test_the_head_of_pretraining_is_the_start(folder: Path) -> None:
    source, model = MaskedLanguageModel.from_pretrained(folder), classifier(folder)
    assert torch.equal(model.head.dense.weight, source.head.dense.weight)
    for name, tensor in source.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor)
    assert torch.equal(classifier(folder).classifier.weight, model.classifier.weight)
    assert not torch.equal(classifier(folder, seed=1).classifier.weight, model.classifier.weight)


def test_the_last_layer_is_taken_over_where_it_means_the_same(folder: Path, tmp_path: Path) -> None:
    source = classifier(folder, seed=5)
    source.save_pretrained(tmp_path)
    assert torch.equal(classifier(tmp_path).classifier.weight, source.classifier.weight)
    other = ClassifierSettings(labels=("a", "c"))
    changed = classifier(tmp_path, settings=other)
    assert not torch.equal(changed.classifier.weight, source.classifier.weight)
    assert torch.equal(changed.head.dense.weight, source.head.dense.weight)
    tokens = first_model(TokenClassifier, AB, str(tmp_path), seed=0)
    assert not torch.equal(tokens.classifier.weight, source.classifier.weight)


def test_an_encoder_alone_is_enough(folder: Path, tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(folder)
    encoder.save_pretrained(tmp_path)
    model = classifier(tmp_path)
    name = "embeddings.tok_embeddings.weight"
    assert torch.equal(model.encoder.state_dict()[name], encoder.state_dict()[name])


def test_what_is_frozen(folder: Path) -> None:
    model = classifier(folder)
    freeze(model, RunSettings(freeze_embeddings=True, freeze_layers=1))
    frozen = {name for name, each in model.named_parameters() if not each.requires_grad}
    assert all(name.startswith(("encoder.embeddings.", "encoder.layers.0.")) for name in frozen)
    assert len(frozen) == 2 + sum(1 for _ in model.encoder.layers[0].parameters())
    with pytest.raises(SettingsError, match="freeze_layers: got 3, expected at most 2"):
        freeze(model, RunSettings(freeze_layers=3))


def test_each_layer_has_its_rate(folder: Path) -> None:
    model = classifier(folder)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    factors = {
        names[id(parameter)]: group["rate_factor"]
        for group in layer_groups(model, 0.1, 0.5)
        for parameter in group["params"]
    }
    assert factors.keys() == set(names.values())
    for name, factor in factors.items():
        expected = 1.0
        if name.startswith("encoder.embeddings."):
            expected = 0.125
        elif name.startswith("encoder.layers."):
            expected = 0.5 ** (2 - int(name.split(".")[2]))
        assert factor == expected, name
    assert [g["weight_decay"] for g in layer_groups(model, 0.1, 1.0)] == [0.1, 0.0]


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
