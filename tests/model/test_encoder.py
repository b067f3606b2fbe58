"""The encoder against the padded oracle, and what a packed batch promises."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.examples import (
    BOUNDARY_LENGTHS,
    largest_difference,
    ragged,
    ragged_batch,
    small_config,
    with_random_weights,
)
from tests.reference.padded_encoder import padded_hidden, padded_logits
from tests.rounding import assert_equal_but_for_rounding, terms_of_encoder
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import ConfigError, InputError
from modernbert.model.choices import AttentionChoice
from modernbert.model.config import EncoderConfig, LayerKind
from modernbert.model.encoder import Encoder
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize

RAGGED = [5, 70, 0, 1, 33, 64]


def in_float64(model: MaskedLanguageModel) -> dict[str, Tensor]:
    """The weights for the reference, as leaves."""
    named = model.named_parameters()
    return {name: weight.detach().double().requires_grad_() for name, weight in named}


def assert_near(found: Tensor, expected: Tensor, config: EncoderConfig, longest: int) -> None:
    """As near as the sums of an encoder are, which the longest sequence's attention is one of."""
    num_terms = terms_of_encoder(config, longest)
    assert_equal_but_for_rounding(found, expected, num_terms=num_terms)


def test_equal_to_the_reference(config: EncoderConfig) -> None:
    model = with_random_weights(MaskedLanguageModel(config))
    token_ids, present = ragged(RAGGED)
    batch = PackedBatch.from_padded(token_ids, present)
    weights = in_float64(model)
    expected = padded_hidden(config, weights, token_ids, present)[present]
    assert_near(model.encoder(batch), expected, config, max(RAGGED))
    expected = padded_logits(config, weights, token_ids, present)[present]
    assert_near(model(batch), expected, config, max(RAGGED))


@pytest.mark.parametrize("attention", ["auto", "blocks"])
def test_causal_is_equal_to_the_reference_and_so_are_its_gradients(
    config: EncoderConfig, attention: AttentionChoice
) -> None:
    model = with_random_weights(MaskedLanguageModel(config))
    model.encoder.is_causal, model.encoder.attention = True, attention
    token_ids, present = ragged(RAGGED)
    batch = PackedBatch.from_padded(token_ids, present)
    weights = in_float64(model)
    expected = padded_logits(config, weights, token_ids, present, is_causal=True)[present]
    logits = model(batch)
    assert_near(logits, expected, config, max(RAGGED))
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    (logits * direction).sum().backward()
    (expected * direction.double()).sum().backward()
    for name, parameter in model.named_parameters():
        size = float(weights[name].grad.abs().max())
        assert largest_difference(parameter.grad, weights[name].grad) <= 1e-4 * size + 1e-7, name


def test_what_follows_a_token_changes_nothing_for_a_causal_encoder() -> None:
    encoder = with_random_weights(Encoder(small_config()))
    encoder.is_causal = True
    one, other = ([5, 6, 7, 8, 9], [4, 4]), ([5, 6, 7, 9, 8], [4, 4])
    first, second = (encoder(PackedBatch.from_sequences(list(each))) for each in (one, other))
    torch.testing.assert_close(first[[0, 1, 2, 5, 6]], second[[0, 1, 2, 5, 6]])
    assert not torch.allclose(first[3], second[3])
    with pytest.raises(ConfigError, match="for training alone"):
        encoder.for_inference()


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([0, *BOUNDARY_LENGTHS]), min_size=1, max_size=4).filter(any),
    window=st.sampled_from([1, 5, 32, 64, 90]),
    kinds=st.lists(st.sampled_from(["global", "local"]), min_size=1, max_size=3),
    hidden_size=st.sampled_from([32, 128]),
)
def test_equal_to_the_reference_with_any_layers_and_window(
    lengths: list[int], window: int, kinds: list[LayerKind], hidden_size: int
) -> None:
    config = small_config(layer_kinds=tuple(kinds), window=window, hidden_size=hidden_size)
    model = with_random_weights(MaskedLanguageModel(config))
    token_ids, present = ragged(lengths)
    expected = padded_hidden(config, in_float64(model), token_ids, present)[present]
    hidden = model.encoder(PackedBatch.from_padded(token_ids, present))
    assert_near(hidden, expected, config, max(lengths))


def test_gradients_equal_to_the_reference(config: EncoderConfig) -> None:
    model = with_random_weights(MaskedLanguageModel(config))
    token_ids, present = ragged(RAGGED)
    labels = torch.arange(sum(RAGGED)) % config.vocab_size

    logits = model(PackedBatch.from_padded(token_ids, present))
    loss = torch.nn.functional.cross_entropy(logits, labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    weights = in_float64(model)
    logits = padded_logits(config, weights, token_ids, present)[present]
    loss = torch.nn.functional.cross_entropy(logits, labels)
    expected = torch.autograd.grad(loss, list(weights.values()))

    for name, got, wanted in zip(weights, gradients, expected, strict=True):
        assert wanted.abs().max() > 1e-5, f"{name} has no part in the loss"
        num_terms = 3 * terms_of_encoder(config, max(RAGGED)) + sum(RAGGED)  # there and back
        assert_equal_but_for_rounding(got, wanted, num_terms=num_terms)


def test_the_embedding_s_gradient_comes_from_both_its_uses(config: EncoderConfig) -> None:
    model = with_random_weights(MaskedLanguageModel(config))
    model(PackedBatch.from_sequences([[5, 6]]))[:, 7].sum().backward()
    gradient = model.encoder.embeddings.tok_embeddings.weight.grad
    assert gradient is not None
    rows = gradient.abs().sum(1).nonzero().flatten().tolist()
    assert rows == [5, 6, 7]  # two are read, one is predicted


@pytest.mark.parametrize("lengths", [[7, 40, 1, 100, 40], [1, 1, 1], [33, 64, 96]])
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "strong"])
def test_packed_sequences_are_as_if_alone(lengths: list[int], fresh: bool) -> None:
    config = EncoderConfig.preset("tiny", vocab_size=512)
    encoder = Encoder(config)
    encoder = initialize(encoder, seed=0) if fresh else with_random_weights(encoder)
    batch = ragged_batch(lengths, vocab_size=512)
    together = batch.split(encoder(batch))
    for ids, hidden in zip(batch.split(), together, strict=True):
        alone = encoder(PackedBatch.from_sequences([ids]))
        assert_near(hidden, alone, config, max(lengths))


def test_the_order_of_sequences_changes_nothing(config: EncoderConfig) -> None:
    encoder = with_random_weights(Encoder(config))
    batch = ragged_batch([7, 40, 1, 33])
    hidden = batch.split(encoder(batch))
    turned = PackedBatch.from_sequences(list(reversed(batch.split())))
    for got, expected in zip(reversed(turned.split(encoder(turned))), hidden, strict=True):
        assert_near(got, expected, config, 40)


def test_rows_of_padding_alone_change_nothing(config: EncoderConfig) -> None:
    encoder = with_random_weights(Encoder(config))
    with_empty, without = ragged_batch([0, 20, 0, 0, 9, 0]), ragged_batch([0, 20, 0, 0, 9, 0])
    ids = [row for row in with_empty.split() if len(row)]
    without = PackedBatch.from_sequences(ids)
    assert_near(encoder(with_empty), encoder(without), config, 20)
    padded = with_empty.to_padded(encoder(with_empty))
    assert padded.shape == (6, 20, config.hidden_size)
    assert padded[0].count_nonzero() == 0


def test_padding_may_stand_anywhere(config: EncoderConfig) -> None:
    """On the left, or between tokens: positions and windows count tokens alone."""
    encoder = with_random_weights(Encoder(config))
    token_ids = torch.arange(5, 35).reshape(2, 15)
    present = torch.ones(2, 15, dtype=torch.bool)
    present[0, :4] = False
    present[1, 3:9] = False
    batch = PackedBatch.from_padded(token_ids, present)
    dense = PackedBatch.from_sequences([token_ids[0, 4:], token_ids[1, [0, 1, 2, *range(9, 15)]]])
    assert torch.equal(encoder(batch), encoder(dense))


@pytest.mark.parametrize("hidden_size", [32, 128])
@pytest.mark.parametrize("window", [64, 5])
@pytest.mark.parametrize("place", [100, 0, 199])
def test_a_local_layer_sees_exactly_its_window(place: int, window: int, hidden_size: int) -> None:
    config = small_config(layer_kinds=("local",), window=window, hidden_size=hidden_size)
    encoder = with_random_weights(Encoder(config))
    ids = torch.arange(200) % 100 + 10
    changed = ids.clone()
    changed[place] = 5
    before, after = (encoder(PackedBatch.from_sequences([x, x])) for x in (ids, changed))
    differs = (before != after).any(dim=1)
    seen = (torch.arange(200) - place).abs() <= window
    assert torch.equal(differs, seen.repeat(2))


def test_a_global_layer_sees_its_whole_sequence_and_no_other(config: EncoderConfig) -> None:
    encoder = with_random_weights(Encoder(config))
    ids = torch.arange(300) % 100 + 10
    changed = ids.clone()
    changed[0] = 5
    before = encoder(PackedBatch.from_sequences([ids, ids]))
    after = encoder(PackedBatch.from_sequences([changed, ids]))
    differs = (before != after).any(dim=1)
    assert differs[:300].all() and not differs[300:].any()


def test_position_matters_only_relative_to_others(config: EncoderConfig) -> None:
    """Rotary positions: with no attention beyond neighbours, a shift leaves the middle alone."""
    local = EncoderConfig(**{**vars(config), "layer_kinds": ("local",)})
    encoder = with_random_weights(Encoder(local))
    ids = torch.arange(60) + 10
    hidden = encoder(PackedBatch.from_sequences([ids]))
    shifted = encoder(PackedBatch.from_sequences([ids[7:]]))
    assert_near(hidden[20:], shifted[13:], config, 60)


def test_training_mode_changes_nothing(config: EncoderConfig) -> None:
    encoder = with_random_weights(Encoder(config))
    batch = ragged_batch([5, 9])
    assert torch.equal(encoder.train()(batch), encoder.eval()(batch))


def test_without_gradients_the_same(config: EncoderConfig) -> None:
    encoder = with_random_weights(Encoder(config))
    batch = ragged_batch(RAGGED)
    with torch.inference_mode():
        hidden = encoder(batch)
    assert_near(hidden, encoder(batch), config, max(RAGGED))


def test_bfloat16_autocast_is_close(config: EncoderConfig) -> None:
    model = with_random_weights(MaskedLanguageModel(config))
    batch = ragged_batch(RAGGED)
    exact = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(batch)
        loss = rough.float().square().mean()
    loss.backward()
    assert rough.isfinite().all()
    assert largest_difference(rough, exact) < 0.05 * float(exact.detach().abs().max())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.dtype == torch.float32


def test_bfloat16_weights(config: EncoderConfig) -> None:
    encoder = with_random_weights(Encoder(config))
    batch = ragged_batch(RAGGED)
    exact = encoder(batch)
    rough = encoder.bfloat16()(batch)
    assert rough.dtype == torch.bfloat16
    similarity = torch.cosine_similarity(rough.float(), exact, dim=1)
    assert similarity.min() > 0.995


@pytest.mark.parametrize("wrong", [[5, 6], torch.tensor([[5, 6]]), "text"])
def test_refuses_what_is_no_packed_batch(wrong: object) -> None:
    encoder = with_random_weights(Encoder(small_config()))
    with pytest.raises(InputError, match=r"^batch: got \w+, expected a PackedBatch"):
        encoder(wrong)


@pytest.mark.parametrize("wrong", [-1, 128, 10**12])
def test_refuses_ids_outside_the_vocabulary(wrong: int) -> None:
    encoder = with_random_weights(Encoder(small_config()))
    with pytest.raises(InputError, match=rf"^token_ids: got {wrong}, expected ids from 0 to 127$"):
        encoder(PackedBatch.from_sequences([[5, 6], [7, wrong]]))


@pytest.mark.parametrize(
    "borders", [[], [0], [0, 3], [0, 5], [1, 4], [0, 3, 2, 4], [0, 7, 4], [-1, 4]]
)
def test_refuses_borders_that_do_not_fit_the_tokens(borders: list[int]) -> None:
    """The kernels would read beside their memory."""
    batch = PackedBatch(
        token_ids=torch.arange(4) + 5,
        cu_seqlens=torch.tensor(borders, dtype=torch.int32),
        max_seqlen=4,
    )
    with pytest.raises(InputError, match=r"^cu_seqlens: expected numbers that rise from 0"):
        with_random_weights(Encoder(small_config()))(batch)


def test_refuses_a_batch_without_tokens() -> None:
    batch = PackedBatch(
        token_ids=torch.zeros(0, dtype=torch.int64),
        cu_seqlens=torch.zeros(2, dtype=torch.int32),
        max_seqlen=0,
    )
    with pytest.raises(InputError, match="1 or more"):
        with_random_weights(Encoder(small_config()))(batch)


def test_the_longest_sequence_may_be_a_bound_but_not_less(config: EncoderConfig) -> None:
    encoder = with_random_weights(Encoder(config))
    batch = ragged_batch([5, 9])
    expected = encoder(batch)
    assert torch.equal(encoder(replace(batch, max_seqlen=10**12)), expected)
    with pytest.raises(InputError, match=r"^max_seqlen: got 8, expected 9 or more$"):
        encoder(replace(batch, max_seqlen=8))
    packed = encoder.for_inference("float32")
    assert_near(packed(replace(batch, max_seqlen=10**12)), expected, config, 9)


def test_a_pause_between_layers_changes_no_bit(config: EncoderConfig) -> None:
    encoder = with_random_weights(Encoder(config))
    batch, other = ragged_batch([30, 70]), ragged_batch([5])
    expected, expected_other = encoder(batch), encoder(other)
    nested: list[torch.Tensor] = []

    def pause() -> None:
        encoder.pause = None
        nested.append(encoder(other))
        encoder.pause = pause

    encoder.pause = pause
    assert torch.equal(encoder(batch), expected)
    assert len(nested) == config.num_layers
    assert all(torch.equal(result, expected_other) for result in nested)
