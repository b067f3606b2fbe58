"""Operations a token, against those that torch counts in the padded oracle."""

import pytest
from tests.model.examples import ragged, small_config, with_random_weights
from tests.reference.padded_encoder import padded_hidden, padded_logits
from torch.utils.flop_counter import FlopCounterMode

from modernbert.model.config import EncoderConfig, flops_per_token
from modernbert.model.heads import MaskedLanguageModel


def counted(config: EncoderConfig, length: int, *, head: bool) -> float:
    weights = dict(with_random_weights(MaskedLanguageModel(config)).named_parameters())
    with FlopCounterMode(display=False) as counter:
        (padded_logits if head else padded_hidden)(config, weights, *ragged([length]))
    return counter.get_total_flops() / length


@pytest.mark.parametrize("length", [7, 100])
def test_global_layers(length: int) -> None:
    config = small_config(layer_kinds=("global",) * 3)
    assert flops_per_token(config, length) == counted(config, length, head=False)
    with_head = flops_per_token(config, length, masked_share=1.0)
    assert with_head == counted(config, length, head=True)


def test_a_window_that_holds_the_sequence_costs_as_much_as_a_global_layer() -> None:
    config = small_config(layer_kinds=("local",) * 3, window=100)
    assert flops_per_token(config, 50) == counted(config, 50, head=False)


@pytest.mark.parametrize("length", [1, 4, 5, 6, 50])
def test_a_window_costs_what_its_tokens_see(length: int) -> None:
    """Counted one by one: two products of width 32 with each key."""
    config = small_config(layer_kinds=("local",), window=4)
    seen = sum(abs(i - j) <= 4 for i in range(length) for j in range(length)) / length
    weights = 4 * 32 * 32 + 3 * 32 * 48
    assert flops_per_token(config, length) == pytest.approx(2 * (weights + 2 * 32 * seen))


def test_long_sequences_cost_more_in_global_layers_alone() -> None:
    base = EncoderConfig.preset("base")
    more = flops_per_token(base, 8192) - flops_per_token(base, 1024)
    assert more == pytest.approx(2 * 2 * 768 * 8 * (8192 - 1024), rel=0.01)
