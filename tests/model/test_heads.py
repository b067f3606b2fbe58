"""Heads: chosen rows, labels, and pooling before the block."""

import pytest
import torch
from tests.model.examples import largest_difference, ragged_batch, small_config, with_random_weights
from tests.rounding import assert_equal_but_for_rounding, terms_of_encoder
from torch.nn import functional

from modernbert.errors import ConfigError
from modernbert.model.heads import (
    ClassifierSettings,
    MaskedLanguageModel,
    SequenceClassifier,
    TokenClassifier,
)
from modernbert.model.pooling import pool


def test_chosen_rows_are_rows_of_all() -> None:
    model = with_random_weights(MaskedLanguageModel(small_config()))
    batch = ragged_batch([5, 1, 9])
    rows = torch.tensor([14, 0, 3, 3])
    logits = model(batch, rows)
    assert logits.shape == (4, 128)
    num_terms = terms_of_encoder(model.config, 9)
    assert_equal_but_for_rounding(logits, model(batch)[rows], num_terms=num_terms)
    assert model(batch, torch.tensor([], dtype=torch.int64)).shape == (0, 128)


def test_a_model_just_made_has_weights_that_compute() -> None:
    """Memory that nobody has written to would be norms of 1e35 and NaN."""
    torch.empty(1 << 20).fill_(float("nan"))
    batch = ragged_batch([5, 1, 9])
    for model in (
        MaskedLanguageModel(small_config()),
        SequenceClassifier(small_config(), ClassifierSettings(labels=("a", "b"))),
        TokenClassifier(small_config(), ClassifierSettings(labels=("a", "b"))),
    ):
        assert model(batch).isfinite().all()
        norms = [value for name, value in model.named_parameters() if "norm" in name]
        assert norms and all(torch.equal(norm, torch.ones_like(norm)) for norm in norms)


def test_the_decoder_shares_the_embedding() -> None:
    model = with_random_weights(MaskedLanguageModel(small_config()))
    assert model.decoder_weight is model.encoder.embeddings.tok_embeddings.weight
    names = [name for name, _ in model.named_parameters()]
    assert len(names) == len(set(names)) and "decoder_bias" in names


def test_a_text_is_pooled_first_and_then_classified() -> None:
    settings = ClassifierSettings(labels=("a", "b", "c"), pooling="mean")
    model = with_random_weights(SequenceClassifier(small_config(), settings))
    batch = ragged_batch([5, 1, 9])
    pooled = pool(model.encoder(batch), batch, "mean")
    hidden = functional.gelu(pooled @ model.head.dense.weight.T)
    hidden = functional.layer_norm(hidden, (32,), model.head.norm.weight, eps=1e-5)
    expected = hidden @ model.classifier.weight.T + model.classifier.bias
    num_terms = terms_of_encoder(model.config, 9)
    assert_equal_but_for_rounding(model(batch), expected, num_terms=num_terms)
    assert model.labels == ("a", "b", "c")


def test_pooling_is_what_the_settings_say() -> None:
    batch = ragged_batch([5, 9])
    outputs = [
        with_random_weights(
            SequenceClassifier(small_config(), ClassifierSettings(labels=("a",), pooling=pooling))
        )(batch)
        for pooling in ("cls", "mean")
    ]
    assert largest_difference(*outputs) > 1e-3


def test_every_token_is_classified() -> None:
    model = with_random_weights(
        TokenClassifier(small_config(), ClassifierSettings(labels=("O", "PER")))
    )
    batch = ragged_batch([5, 1])
    logits = model(batch)
    assert logits.shape == (6, 2)
    changed = model(ragged_batch([5, 1], seed=1))
    assert largest_difference(logits[5:], changed[5:]) > 1e-3


def test_refuses_labels() -> None:
    with pytest.raises(ConfigError, match="labels: got none"):
        ClassifierSettings(labels=())
    with pytest.raises(ConfigError, match="a name occurs twice"):
        ClassifierSettings(labels=("a", "b", "a"))
