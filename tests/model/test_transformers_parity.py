"""Equal to transformers with the same weights: hidden states, logits and gradients."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.model.examples import ragged, with_random_weights
from tests.rounding import assert_equal_but_for_rounding, terms_of_encoder
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.pretrained import to_foreign

Pair = tuple[MaskedLanguageModel, Any]


def as_theirs(model: MaskedLanguageModel, transformers: ModuleType, folder: Path) -> Any:
    """The same model as transformers loads it."""
    model.save_pretrained(folder)
    theirs, report = transformers.AutoModelForMaskedLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values()), report
    return theirs.eval()


@pytest.fixture(scope="module")
def tiny(transformers: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The preset, with global and local layers of different rotary bases."""
    config = EncoderConfig.preset("tiny", vocab_size=512)
    model = with_random_weights(MaskedLanguageModel(config), gain=0.7)
    return model, as_theirs(model, transformers, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def base(transformers: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The published size: made, written and read once for all tests here."""
    model = with_random_weights(MaskedLanguageModel(EncoderConfig.preset("base")), gain=0.7)
    return model, as_theirs(model, transformers, tmp_path_factory.mktemp("base"))


def answers(theirs: Any, **inputs: Any) -> tuple[Tensor, Tensor]:
    """The last hidden states and the logits of transformers: (rows, columns, ...) each."""
    with torch.no_grad():
        output = theirs(**inputs, output_hidden_states=True)
    return output.hidden_states[-1], output.logits


def check_ragged(pair: Pair, token_ids: Tensor, present: Tensor) -> None:
    model, theirs = pair
    hidden, logits = answers(theirs, input_ids=token_ids, attention_mask=present.long())
    batch = PackedBatch.from_padded(token_ids, present)
    with torch.no_grad():
        assert_near(model.encoder(batch), hidden[present], model, batch)
        assert_near(model(batch), logits[present], model, batch)


def assert_near(
    found: Tensor, expected: Tensor, model: MaskedLanguageModel, batch: PackedBatch
) -> None:
    num_terms = terms_of_encoder(model.config, batch.max_seqlen)
    assert_equal_but_for_rounding(found, expected, num_terms=num_terms)


def block_masks(batch: PackedBatch, window: int) -> Mapping[str, Tensor]:
    """For transformers: (1, 1, total_tokens, total_tokens) bool for each kind of layer."""
    same = batch.sequence_ids[:, None] == batch.sequence_ids
    near = (batch.position_ids[:, None] - batch.position_ids).abs() <= window
    return {"full_attention": same[None, None], "sliding_attention": (same & near)[None, None]}


def check_packed(pair: Pair, batch: PackedBatch) -> None:
    """Packed documents against each alone, and against transformers with masks of blocks."""
    model, theirs = pair
    hidden, logits = answers(
        theirs,
        input_ids=batch.token_ids[None],
        position_ids=batch.position_ids[None],
        attention_mask=block_masks(batch, model.config.window),
    )
    with torch.no_grad():
        packed = model.encoder(batch)
        assert_near(packed, hidden[0], model, batch)
        assert_near(model(batch), logits[0], model, batch)
        for ids, states in zip(batch.split(), batch.split(packed), strict=True):
            alone = model.encoder(PackedBatch.from_sequences([ids]))
            assert_near(states, alone, model, batch)


@pytest.mark.parametrize(
    "lengths", [[5, 200, 1, 65, 130], [400], [1, 1], [64, 64, 64], [129, 128, 127]]
)
def test_tiny_on_ragged_batches(tiny: Pair, lengths: list[int]) -> None:
    check_ragged(tiny, *ragged(lengths, vocab_size=512))


def test_tiny_with_padding_on_the_left(tiny: Pair) -> None:
    token_ids, present = ragged([5, 200, 1, 65, 130], vocab_size=512)
    check_ragged(tiny, token_ids.flip(1), present.flip(1))


def test_tiny_packed(tiny: Pair) -> None:
    token_ids, present = ragged([5, 200, 1, 65, 130, 2], vocab_size=512)
    check_packed(tiny, PackedBatch.from_padded(token_ids, present))


def test_tiny_gradients(tiny: Pair) -> None:
    model, theirs = tiny
    token_ids, present = ragged([5, 200, 1, 65, 130], vocab_size=512)
    labels = torch.where(torch.arange(200) % 3 == 0, token_ids, -100).where(present, -100)
    theirs.zero_grad()
    theirs(input_ids=token_ids, attention_mask=present.long(), labels=labels).loss.backward()
    rows = (labels[present] >= 0).nonzero().flatten()
    model.zero_grad()
    logits = model(PackedBatch.from_padded(token_ids, present), rows)
    torch.nn.functional.cross_entropy(logits, labels[present][rows]).backward()

    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in model.named_parameters():
        wanted = expected.pop(to_foreign(name))
        assert parameter.grad is not None
        num_terms = 3 * terms_of_encoder(model.config, 200) + len(rows)  # there and back
        assert_equal_but_for_rounding(parameter.grad, wanted, num_terms=num_terms)
    assert not expected


def test_base_on_ragged_batches(base: Pair) -> None:
    check_ragged(base, *ragged([150, 66, 7, 1], vocab_size=50_368))


def test_base_packed(base: Pair) -> None:
    token_ids, present = ragged([6, 140, 1, 67], vocab_size=50_368, seed=1)
    check_packed(base, PackedBatch.from_padded(token_ids, present))
