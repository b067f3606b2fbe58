"""Graphs of few short texts, with a stand-in that repeats the function on the same memory."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.examples import largest_difference, ragged_batch, small_config, with_random_weights
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.model import attention, choices, layout
from modernbert.model import encoder as encoders
from modernbert.model.encoder import Encoder
from modernbert.model.graphs import SIZES, Graph, Graphs

CPU = torch.device("cpu")


class Recorder:
    """What a CUDA graph does, as far as memory goes: new inputs and outputs are not seen."""

    def __init__(self) -> None:
        self.num_recorded = self.num_replayed = 0

    def __call__(self, function: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], object]]:
        self.num_recorded += 1
        output = function().clone()

        def replay() -> None:
            self.num_replayed += 1
            output.copy_(function())

        return output, replay


def seconds(*, plain: float, replayed: float) -> Callable[[Callable[[], object]], float]:
    """A clock for calls that come in turn."""
    turns = iter((plain, replayed) * 100)
    return lambda _: next(turns)


@pytest.fixture(scope="module")
def model() -> Encoder:
    return with_random_weights(Encoder(small_config())).requires_grad_(False)


def graphs(model: Encoder, recorder: Recorder, *, replayed: float = 0.1) -> Graphs:
    clock = seconds(plain=1.0, replayed=replayed)
    return Graphs(model._compute, CPU, record=recorder, clock=clock)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_equal_to_the_plain_forward(model: Encoder, lengths: list[int], seed: int) -> None:
    recorder = Recorder()
    recorded = graphs(model, recorder)
    first = ragged_batch([9, 3, 1], seed=seed)
    kept = recorded(first)
    batch = ragged_batch(lengths, seed=seed)
    found, expected = recorded(batch), model(batch)
    if batch.num_sequences < 32 // 8 and batch.total_tokens <= 32:
        assert found is not None
    if found is not None:
        assert largest_difference(found, expected) < 1e-5
    assert kept is not None and largest_difference(kept, model(first)) < 1e-5  # still its own


def test_the_smallest_that_fits_is_taken_and_none_for_more(model: Encoder) -> None:
    recorded = graphs(model, recorder := Recorder())
    assert recorder.num_recorded == len(SIZES)
    assert [graph.num_tokens for graph in recorded._graphs] == list(SIZES)
    for lengths, size in (([32], 32), ([33], 64), ([2] * 4, 64), ([1024], 1024), ([1] * 127, 1024)):
        batch = ragged_batch(lengths)
        assert next(g for g in recorded._graphs if g.takes(batch)).num_tokens == size
    assert recorded(ragged_batch([1025])) is None
    assert recorded(ragged_batch([1] * 128)) is None


def test_none_where_they_are_not_faster(model: Encoder) -> None:
    recorded = graphs(model, Recorder(), replayed=0.95)
    assert recorded(ragged_batch([5])) is None
    assert recorded.seconds[32] == (1.0, 0.95)


def test_memory_stays_where_it_was_recorded(model: Encoder) -> None:
    places = set()

    def compute(batch: PackedBatch) -> Tensor:
        places.add((batch.token_ids.data_ptr(), batch.cu_seqlens.data_ptr(), batch.max_seqlen))
        return model(batch)

    graph = Graph(compute, 64, CPU, Recorder())
    for lengths in ([3], [20, 20], [1, 0, 2]):
        graph(ragged_batch(lengths))
    assert len(places) == 1


def test_an_encoder_takes_them(model: Encoder) -> None:
    recorder = Recorder()
    model.graphs = graphs(model, recorder)
    try:
        short, long = ragged_batch([4, 5]), ragged_batch([1100])
        before = recorder.num_replayed
        found = model(short)
        assert recorder.num_replayed == before + 1
        model(long)
        assert recorder.num_replayed == before + 1
    finally:
        model.graphs = None
    assert largest_difference(found, model(short)) < 1e-5


def test_nothing_of_a_forward_asks_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without data stand for a device that must not be waited for while recording."""
    for module in (choices, layout, encoders):
        monkeypatch.setattr(module, "has_varlen", lambda _: True)
    monkeypatch.setattr(attention, "_varlen", lambda query, *_: query)
    monkeypatch.setattr(attention, "HALF", (torch.float32,))
    meta = torch.device("meta")
    unseen = Encoder(small_config()).to(meta)
    graph = Graph(unseen._compute, 32, meta, lambda function: (function(), lambda: None))
    assert graph(ragged_batch([3, 4]).to(meta)).shape == (7, 32)
    unseen.attention = "blocks"
    with pytest.raises(RuntimeError, match="meta"):
        Graph(unseen._compute, 32, meta, lambda function: (function(), lambda: None))
