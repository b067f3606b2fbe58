"""The mean of models' weights."""

import itertools

import pytest
import torch

from modernbert.errors import ConfigError
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import ClassifierSettings, MaskedLanguageModel, SequenceClassifier
from modernbert.model.initialize import initialize
from modernbert.tasks.pretraining.averaging import average


def config(**changes: int) -> EncoderConfig:
    numbers = {"vocab_size": 64, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48}
    return EncoderConfig.preset("tiny", **{**numbers, **changes})


def model(seed: int) -> MaskedLanguageModel:
    return initialize(MaskedLanguageModel(config()), seed=seed)


def test_the_order_leaves_no_trace() -> None:
    means = []
    for order in itertools.permutations(range(3)):
        mean = average((model(seed), 1.0 + seed) for seed in order)
        means.append(torch.cat([p.detach().flatten() for p in mean.parameters()]))
    assert all(torch.equal(means[0], each) for each in means)


def test_one_model_is_its_own_mean() -> None:
    mean, single = average([(model(3), 0.3)]), model(3)
    for one, other in zip(mean.parameters(), single.parameters(), strict=True):
        assert torch.equal(one, other)


def test_any_head_can_be_averaged() -> None:
    settings = ClassifierSettings(labels=("a", "b"))
    models = [initialize(SequenceClassifier(config(), settings), seed=seed) for seed in (0, 1)]
    expected = (models[0].classifier.weight + models[1].classifier.weight) / 2
    mean = average((each, 1.0) for each in models)
    torch.testing.assert_close(mean.classifier.weight, expected.detach())


def test_other_numbers() -> None:
    other = MaskedLanguageModel(config(max_seqlen=100))
    with pytest.raises(ConfigError, match="max_seqlen is 8192 in one model and 100 in another"):
        average([(model(0), 1.0), (other, 1.0)])
