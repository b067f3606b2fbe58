"""The first model of a fine-tuning: what it takes over, what is frozen, and each layer's rate."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.labels import labelled

from modernbert.errors import SettingsError
from modernbert.model.encoder import Encoder
from modernbert.model.heads import (
    ClassifierSettings,
    MaskedLanguageModel,
    SequenceClassifier,
    TokenClassifier,
)
from modernbert.tasks.tuning.first_model import first_model, freeze, layer_groups
from modernbert.tasks.tuning.recipe import RunSettings

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
