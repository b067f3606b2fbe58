"""First weights follow the table of the module."""

from types import ModuleType

import pytest
import torch
from tests.model.examples import small_config

from modernbert.model.config import EncoderConfig
from modernbert.model.encoder import Encoder
from modernbert.model.heads import ClassifierSettings, MaskedLanguageModel, SequenceClassifier
from modernbert.model.initialize import initialize
from modernbert.model.pretrained import to_foreign

CONFIG = EncoderConfig.preset("tiny", vocab_size=512)  # 6 layers of width 256
SMALL_SIGMA = 0.02 / 12**0.5
TRUNCATED = 0.8796  # standard deviation of a standard normal that is cut at 2


@pytest.fixture(scope="module")
def model() -> MaskedLanguageModel:
    return initialize(MaskedLanguageModel(CONFIG), seed=0)


def sigma_of(name: str) -> float:
    return SMALL_SIGMA if name.endswith(("Wo.weight", "dense.weight")) else 0.02


def test_matrices(model: MaskedLanguageModel) -> None:
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            sigma = sigma_of(name)
            assert parameter.std().item() == pytest.approx(TRUNCATED * sigma, rel=0.02), name
            assert abs(parameter.mean().item()) < 0.01 * sigma, name
            assert 1.9 * sigma < parameter.abs().max().item() <= 2 * sigma * 1.0001, name


def test_vectors(model: MaskedLanguageModel) -> None:
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert (parameter == (0 if name.endswith("bias") else 1)).all(), name


def test_classifiers() -> None:
    settings = ClassifierSettings(labels=tuple(map(str, range(40))))
    classifier = initialize(SequenceClassifier(CONFIG, settings), seed=0).classifier
    assert classifier.weight.std().item() == pytest.approx(TRUNCATED / 16, rel=0.03)
    assert (classifier.bias == 0).all()


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    first, second, other = (initialize(Encoder(small_config()), seed=seed) for seed in (1, 1, 2))
    for one, two, three in zip(*(m.parameters() for m in (first, second, other)), strict=True):
        assert torch.equal(one, two)
        assert one.ndim == 1 or not torch.equal(one, three)


def test_torch_s_own_generator_is_left_alone() -> None:
    encoder = Encoder(small_config())
    before = torch.get_rng_state()
    initialize(encoder, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_sigmas_as_transformers(
    model: MaskedLanguageModel, transformers: ModuleType
) -> None:
    theirs = transformers.ModernBertForMaskedLM(
        transformers.ModernBertConfig(
            vocab_size=512,
            hidden_size=256,
            intermediate_size=384,
            num_hidden_layers=6,
            num_attention_heads=4,
            pad_token_id=None,
        )
    )
    sigmas = {name: float(p.detach().std()) for name, p in theirs.named_parameters() if p.ndim == 2}
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            if "tok_embeddings" in name:
                continue  # transformers draws it again as a decoder, with the smaller sigma
            expected = sigmas[to_foreign(name)]
            assert parameter.std().item() == pytest.approx(expected, rel=0.03), name
