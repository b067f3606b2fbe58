"""Compiled layers: captured whole, once for each kind and shape, and equal to the others."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
import torch
from tests.model.examples import small_config, with_random_weights
from tests.rounding import assert_equal_but_for_rounding, terms_of_encoder
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.model import attention, choices
from modernbert.model import encoder as encoders
from modernbert.model import layout as layouts
from modernbert.model.config import LayerKind
from modernbert.model.dropout import Dropout
from modernbert.model.encoder import Encoder
from modernbert.model.layout import Layout

TOTAL = 160
NUM_KINDS = 3  # the first layer, which has no attention norm; local ones; other global ones
MIXES = ([40, 30, 20, 5], [64, 1, 1, 64], [100, 7, 9, 1], [3, 64, 40, 2, 2])  # 8 when filled up


class Counter:
    """A compiler that runs the captured graph as it is and counts them."""

    def __init__(self) -> None:
        self.num_graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _: Sequence[Tensor]) -> Callable[..., object]:
        self.num_graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


def encoder() -> Encoder:
    kinds: tuple[LayerKind, ...] = ("global", "local", "local") * 4
    return with_random_weights(Encoder(small_config(layer_kinds=kinds)), gain=0.7)


def assert_near(found: Tensor, expected: Tensor, model: Encoder) -> None:
    num_terms = terms_of_encoder(model.config, TOTAL)
    assert_equal_but_for_rounding(found, expected, num_terms=num_terms)


def batch_of(lengths: Sequence[int]) -> PackedBatch:
    generator = torch.Generator().manual_seed(len(lengths))
    ids = [torch.randint(5, 128, (length,), generator=generator) for length in lengths]
    return PackedBatch.from_sequences(ids).filled_up(TOTAL, max_seqlen=100, token_id=3)


def dense_varlen(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, window: int | None
) -> Tensor:
    """Stands for the CUDA kernel: the same function of borders, by a mask of all pairs."""
    rows = torch.arange(len(query))
    sequences = torch.bucketize(rows, layout.batch.cu_seqlens[1:], right=True)
    mask = sequences[:, None] == sequences
    if window is not None:
        mask = mask & ((rows[:, None] - rows).abs() <= window)
    heads = (x.transpose(0, 1) for x in (query, key, value))
    attended = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask)
    return attended.transpose(0, 1)


@pytest.fixture
def varlen_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (choices, layouts):
        monkeypatch.setattr(module, "has_varlen", lambda _: True)
    monkeypatch.setattr(attention, "_varlen", dense_varlen)
    monkeypatch.setattr(attention, "HALF", (torch.float32, torch.bfloat16))


@pytest.mark.usefixtures("varlen_on_a_cpu")
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_a_graph_a_kind_for_all_mixes_of_lengths_with_equal_gradients(rate: float) -> None:
    counter = Counter()
    plain, compiled = encoder(), encoder().compile_layers(counter)
    plain.attention = "varlen"
    for lengths in MIXES:
        batch = batch_of(lengths)
        outputs = []
        for model in (plain, compiled):
            dropout = Dropout(rate, keys=[(1,)], num_tokens_each=[TOTAL]) if rate else None
            output = model(batch, dropout=dropout)
            output[: sum(lengths)].square().sum().backward()
            outputs.append(output.detach())
        assert_near(*outputs, plain)
    assert counter.num_graphs == NUM_KINDS
    for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        num_terms = 3 * terms_of_encoder(plain.config, TOTAL)  # there and back
        assert_equal_but_for_rounding(one.grad, other.grad, num_terms=len(MIXES) * num_terms)


@pytest.mark.usefixtures("varlen_on_a_cpu")
def test_more_graphs_than_the_compiler_allows_by_itself() -> None:
    """A small model and a large one, trained and evaluated, in one shape and in another."""
    counter = Counter()
    for width in (32, 64):
        model = with_random_weights(Encoder(small_config(hidden_size=width, num_heads=2)))
        model.compile_layers(counter, dynamic=False)
        model.attention = "varlen"
        for total in (48, 64, 80):
            for with_gradients in (True, False):
                batch = PackedBatch.from_sequences([torch.arange(total) + 5])
                with torch.set_grad_enabled(with_gradients):
                    model(batch)
    assert counter.num_graphs == 2 * 3 * 2 * NUM_KINDS


@torch.library.custom_op("modernbert_tests::varlen", mutates_args=())
def varlen_operator(
    query: Tensor, key: Tensor, value: Tensor, borders: Tensor, longest: int, window: list[int]
) -> Tensor:
    """To the compiler what the CUDA kernel is: opaque, with the longest sequence as a number."""
    assert int(borders.diff().max()) <= longest
    layout = SimpleNamespace(batch=SimpleNamespace(cu_seqlens=borders))
    reach = None if window[0] < 0 else window[0]
    return dense_varlen(query, key, value, layout, reach).contiguous()  # type: ignore[arg-type]


@varlen_operator.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, borders: Tensor, longest: int, window: list[int]
) -> Tensor:
    del key, value, borders, longest, window
    return torch.empty_like(query)


def opaque_varlen(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, window: int | None
) -> Tensor:
    batch, reach = layout.batch, [-1, -1] if window is None else [window, window]
    result: Tensor = varlen_operator(query, key, value, batch.cu_seqlens, batch.max_seqlen, reach)
    return result


@torch.inference_mode()
@pytest.mark.usefixtures("varlen_on_a_cpu")
def test_for_inference_a_graph_a_kind_for_batches_of_all_shapes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without filling up: tokens, sequences and the longest one all vary."""
    monkeypatch.setattr(attention, "_varlen", opaque_varlen)
    counter = Counter()
    plain, compiled = encoder(), encoder().compile_layers(counter, dynamic=True)
    plain.attention = compiled.attention = "varlen"
    for lengths in ([2, 2], [2], [40, 30, 20, 5], [7] * 23, [100], [3, 100, 1, 9], [2, 2]):
        batch = PackedBatch.from_sequences([torch.arange(5, 5 + length) for length in lengths])
        assert_near(plain(batch), compiled(batch), plain)
    assert counter.num_graphs == NUM_KINDS


def test_only_attention_by_varlen_is_compiled_for_inference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[bool | None] = []

    def compile_layers(self: Encoder, *, dynamic: bool | None) -> Encoder:
        compiled.append(dynamic)
        return self

    monkeypatch.setattr(Encoder, "compile_layers", compile_layers)
    model = encoder().for_inference()
    assert model.compile_for_inference() is model and compiled == []
    monkeypatch.setattr(encoders, "has_varlen", lambda _: True)
    monkeypatch.setattr(encoders, "Graphs", lambda *_: None)
    model._autocasts = False
    assert model.compile_for_inference() is model and compiled == []
    model._autocasts = True
    assert model.compile_for_inference() is model and compiled == [True]


@torch.no_grad()
def test_flex_attention_is_captured_once() -> None:
    counter = Counter()
    plain, compiled = encoder(), encoder().compile_layers(counter)
    compiled.attention = "flex"
    for lengths in MIXES:
        batch = batch_of(lengths)
        assert_near(plain(batch), compiled(batch), plain)
    assert counter.num_graphs == NUM_KINDS


@torch.no_grad()
def test_blocks_are_equal_too() -> None:
    plain, compiled = encoder(), encoder().compile_layers(Counter())
    compiled.attention = "blocks"
    for lengths in MIXES[:2]:
        batch = batch_of(lengths)
        assert_near(plain(batch), compiled(batch), plain)


@torch.no_grad()
def test_filling_up_changes_no_real_token() -> None:
    model = encoder()
    for lengths in MIXES:
        filled = batch_of(lengths)
        total = sum(lengths)
        batch = PackedBatch.from_sequences(list(filled.token_ids[:total].split(lengths)))
        assert_near(model(batch), model(filled)[:total], model)


def test_weights_of_a_compiled_encoder_have_their_own_names() -> None:
    assert encoder().compile_layers(Counter()).state_dict().keys() == encoder().state_dict().keys()
