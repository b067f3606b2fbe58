"""The encoder in C against the encoder in torch: every variant, every precision."""

import ctypes
from typing import get_args

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.model.examples import BOUNDARY_LENGTHS
from torch import Tensor
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.errors import ConfigError, InputError, ModelFolderError
from modernbert.model.config import Activation, EncoderConfig, layer_kinds
from modernbert.model.dropout import Dropout
from modernbert.model.encoder import Encoder
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import initialize
from modernbert.model.native.engine import Engine, PackedWeights, Precision, supports
from modernbert.model.native.loading import has_bfloat16

VOCAB_SIZE = 320
PRECISIONS = ("float32", "bfloat16", "int8")

pytestmark = pytest.mark.usefixtures("variant")


def small_encoder(**changes: object) -> Encoder:
    """Weights far from their first values: norms that are not 1, scores that are not flat."""
    numbers = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_heads": 2,
        "layer_kinds": layer_kinds(4),
        **changes,
    }
    encoder = initialize(Encoder(EncoderConfig.preset("tiny", **numbers)), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in encoder.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise, alpha=0.2 if parameter.ndim == 1 else 0.06)
    return encoder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return small_encoder()


@pytest.fixture(scope="module")
def engines(encoder: Encoder, variant: str) -> dict[str, Engine]:  # noqa: ARG001
    return {name: Engine(encoder, name) for name in PRECISIONS if supports(encoder.config, name)}


def batch_of(lengths: list[int], seed: int = 0) -> PackedBatch:
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(VOCAB_SIZE, (length,), generator=generator) for length in lengths]
    return PackedBatch.from_sequences(rows)


@torch.no_grad()
def expected(encoder: Encoder, batch: PackedBatch) -> Tensor:
    return encoder(batch)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(
        st.sampled_from(BOUNDARY_LENGTHS) | st.integers(1, 300), min_size=1, max_size=6
    )
)
@example(lengths=[1])
@example(lengths=[5, 1])
@example(lengths=[6])
@example(lengths=[7] * 30)
@example(lengths=[95])
@example(lengths=[96])
@example(lengths=[97, 95])
@example(lengths=[449, 448])
@example(lengths=[577])
@example(lengths=[1100, 1])
def test_float32_is_the_same(
    encoder: Encoder, engines: dict[str, Engine], lengths: list[int]
) -> None:
    batch = batch_of(lengths)
    difference = engines["float32"](batch) - expected(encoder, batch)
    assert difference.abs().max() < 1e-5


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_any_number_of_threads(
    encoder: Encoder, engines: dict[str, Engine], num_threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        for lengths in ([3, 20], [300, 90, 7], [700]):
            batch = batch_of(lengths)
            difference = engines["float32"](batch) - expected(encoder, batch)
            assert difference.abs().max() < 1e-5
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("bfloat16_variant")
@pytest.mark.parametrize("lengths", [[1], [50, 3], [300, 129, 64, 65, 1], [1200]])
def test_bfloat16_is_close(
    encoder: Encoder, engines: dict[str, Engine], lengths: list[int]
) -> None:
    """No further from float32 than the torch modules under autocast, and a little."""
    batch = batch_of(lengths)
    reference = expected(encoder, batch)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        usual = (encoder(batch) - reference).square().mean().sqrt()
    error = (engines["bfloat16"](batch) - reference).square().mean().sqrt()
    assert error <= 1.2 * usual


@pytest.mark.parametrize("lengths", [[1], [50, 3], [300, 129, 64, 65, 1], [1200]])
def test_int8_is_close(encoder: Encoder, engines: dict[str, Engine], lengths: list[int]) -> None:
    batch = batch_of(lengths)
    similarity = functional.cosine_similarity(
        engines["int8"](batch), expected(encoder, batch), dim=1
    )
    assert similarity.min() > 0.998


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_text_does_not_depend_on_its_neighbours(
    engines: dict[str, Engine], precision: str
) -> None:
    if precision not in engines:
        pytest.skip(f"this CPU has no {precision}")
    batch = batch_of([40, 130, 7])
    together = batch.split(engines[precision](batch))
    for ids, hidden in zip(batch.split(), together, strict=True):
        alone = engines[precision](PackedBatch.from_sequences([ids]))
        # Equal values; only the order of attention's sums may differ with the place in the batch.
        assert (alone - hidden).abs().max() < (1e-5 if precision == "float32" else 3e-2)
        assert functional.cosine_similarity(alone, hidden, dim=1).min() > 0.9999


def test_empty_rows_of_a_padded_batch(encoder: Encoder, engines: dict[str, Engine]) -> None:
    present = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1]])
    batch = PackedBatch.from_padded(torch.randint(VOCAB_SIZE, (3, 3)), present)
    difference = engines["float32"](batch) - expected(encoder, batch)
    assert difference.abs().max() < 1e-5


def test_the_window_is_exact() -> None:
    """With local layers alone, one layer deep: a change 64 tokens away is seen, 65 is not."""
    local = small_encoder(layer_kinds=("local",))
    engine = Engine(local, "float32")
    before = batch_of([200])
    ids = before.token_ids.clone()
    ids[100] = (ids[100] + 1) % VOCAB_SIZE
    changed = (engine(PackedBatch.from_sequences([ids])) - engine(before)).abs().amax(dim=1) > 0
    assert changed.nonzero().flatten().tolist() == list(range(36, 165))


def test_other_windows() -> None:
    for window in (1, 16, 63, 100, 300):
        encoder = small_encoder(window=window)
        batch = batch_of([250, 31])
        difference = Engine(encoder, "float32")(batch) - expected(encoder, batch)
        assert difference.abs().max() < 1e-5


def test_positions_beyond_the_first_table(encoder: Encoder, engines: dict[str, Engine]) -> None:
    for length in (1023, 1025, 2100):
        batch = batch_of([length])
        difference = engines["float32"](batch) - expected(encoder, batch)
        assert difference.abs().max() < 1e-5


@pytest.mark.parametrize("activation", get_args(Activation))
def test_every_activation(activation: Activation) -> None:
    encoder, batch = small_encoder(activation=activation), batch_of([50, 3])
    difference = Engine(encoder, "float32")(batch) - expected(encoder, batch)
    assert difference.abs().max() < 1e-5
    narrow = Engine(encoder, "int8")(batch)
    similarity = torch.nn.functional.cosine_similarity(narrow, expected(encoder, batch), dim=1)
    assert similarity.min() > 0.99


@pytest.mark.parametrize("activation", get_args(Activation))
def test_activations_of_large_numbers_and_nan(activation: Activation) -> None:
    encoder = small_encoder(activation=activation)
    with torch.no_grad():
        for layer in encoder.layers:
            layer.mlp.Wi.weight *= 1000
    batch = batch_of([20])
    assert torch.allclose(Engine(encoder, "float32")(batch), expected(encoder, batch), atol=1e-2)
    with torch.no_grad():
        encoder.layers[0].mlp.Wi.weight[0, 0] = torch.nan
    assert Engine(encoder, "float32")(batch).isnan().all()


def test_sizes_that_do_not_fit() -> None:
    def fits(**changes: object) -> bool:
        return supports(EncoderConfig.preset("tiny", vocab_size=VOCAB_SIZE, **changes), "float32")

    assert fits()
    assert not fits(num_heads=8)  # heads of 32
    assert fits(intermediate_size=416)
    assert not fits(intermediate_size=400)


def product_of(
    weight: Tensor, rows: Tensor, precision: Precision, *, is_gated: bool = False
) -> Tensor:
    if precision == "bfloat16" and not has_bfloat16():
        pytest.skip("these kernels have no bfloat16")
    return PackedWeights.pack(weight, precision, is_gated=is_gated).multiply(rows)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 5, 6, 7, 95, 97, 200])
@pytest.mark.parametrize(("columns", "depth"), [(64, 32), (192, 64), (128, 416)])
def test_a_product_in_float32(num_rows: int, columns: int, depth: int) -> None:
    """Within a unit in the last place for each term of the sum."""
    weight, rows = drawn(columns, depth), drawn(num_rows, depth, seed=1)
    exact = rows.double() @ weight.double().T
    sizes = rows.double().abs() @ weight.double().abs().T
    error = (product_of(weight, rows, "float32") - exact).abs()
    assert (error <= depth * torch.finfo(torch.float32).eps * sizes).all()


def test_a_product_in_bfloat16_rounds_its_operands_alone() -> None:
    weight, rows = drawn(128, 96), drawn(9, 96, seed=1)
    exact = rows.bfloat16().double() @ weight.bfloat16().double().T
    sizes = rows.double().abs() @ weight.double().abs().T
    error = (product_of(weight, rows, "bfloat16") - exact).abs()
    assert (error <= 96 * torch.finfo(torch.float32).eps * 1.02 * sizes).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_products_in_int8_are_exact(sign: int) -> None:
    """Sums of products that units of 16 bits could not hold, were they not chosen with care."""
    weight = sign * torch.ones(64, 256)
    weight[:, ::2] *= -1
    rows = torch.ones(7, 256)
    rows[1::2] *= -1
    rows[:, ::2] *= -1
    product = product_of(weight, rows, "int8")
    assert torch.allclose(product, rows @ weight.T, rtol=1e-6)


def test_a_product_in_int8_is_close() -> None:
    """Each operand is within half a step of its own."""
    weight, rows = drawn(128, 256), drawn(20, 256, seed=1)
    similarity = functional.cosine_similarity(
        product_of(weight, rows, "int8"), rows @ weight.T, dim=1
    )
    assert similarity.min() > 0.9995


def test_halves_that_are_gated_share_panels() -> None:
    """Column i of the first half stands 32 before column i of the second."""
    weight, rows = drawn(128, 64), drawn(3, 64, seed=1)
    first, second = (rows @ weight.T).unflatten(1, (2, 2, 32)).unbind(1)
    gated = product_of(weight, rows, "float32", is_gated=True)
    assert torch.allclose(gated, torch.stack((first, second), dim=2).flatten(1), atol=1e-4)


class TestForInference:
    def test_the_model_gives_the_same(self) -> None:
        config = small_encoder().config
        model = initialize(MaskedLanguageModel(config), seed=3)
        batch = batch_of([30, 5])
        with torch.no_grad():
            before = model(batch)
        assert (model.for_inference("float32")(batch) - before).abs().max() < 1e-5
        assert model.encoder.engine is not None

    def test_it_lets_go_of_the_weights(self) -> None:
        encoder = small_encoder().for_inference("float32")
        assert {name for name, _ in encoder.named_parameters()} == {
            "embeddings.tok_embeddings.weight",
            "embeddings.norm.weight",
        }

    def test_it_cannot_train(self) -> None:
        encoder = small_encoder().for_inference("float32")
        batch = batch_of([3])
        assert not encoder(batch).requires_grad
        with pytest.raises(InputError, match="cannot train"):
            encoder(batch, dropout=Dropout(0.1, keys=[(0,)], num_tokens_each=[3]))

    def test_it_cannot_be_saved(self, tmp_path: object) -> None:
        with pytest.raises(ModelFolderError, match="packed for inference"):
            small_encoder().for_inference("float32").save_pretrained(f"{tmp_path}/model")

    def test_an_unknown_precision(self) -> None:
        with pytest.raises(ConfigError, match="expected auto, float32, bfloat16 or int8"):
            small_encoder().for_inference("float16")  # type: ignore[arg-type]

    def test_int8_where_the_sizes_do_not_fit(self) -> None:
        with pytest.raises(ConfigError, match="int8 needs"):
            small_encoder(num_heads=4).for_inference("int8")

    def test_token_ids_are_checked(self) -> None:
        encoder = small_encoder().for_inference("float32")
        with pytest.raises(InputError, match="expected ids from 0 to 319"):
            encoder(PackedBatch.from_sequences([[VOCAB_SIZE]]))

    @pytest.mark.parametrize("precision", ["auto", "bfloat16", "float32"])
    def test_without_the_kernels(self, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("modernbert.model.choices.supports", lambda *_: False)
        encoder = small_encoder()
        batch = batch_of([30, 70])
        reference = expected(encoder, batch)
        ready = encoder.for_inference(precision)  # type: ignore[arg-type]
        assert ready.engine is None
        similarity = functional.cosine_similarity(ready(batch), reference, dim=1)
        assert similarity.min() > (0.999 if precision != "float32" else 0.99999)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("lengths", [[700, 3], [2500, 1800], [5]], ids=str)
@pytest.mark.parametrize("wanted", [0, 1])
def test_pauses_change_no_bit(
    encoder: Encoder, engines: dict[str, Engine], precision: str, lengths: list[int], wanted: int
) -> None:
    """Even when other batches, and longer ones, are computed in them."""
    if precision not in engines:
        pytest.skip(f"no {precision} here")
    engine, long = Engine(encoder, precision), batch_of(lengths)
    others = [batch_of([2]), batch_of([1500, 40])]
    expected_long, *expected_others = (engines[precision](batch) for batch in (long, *others))
    nested: list[Tensor] = []
    hidden = engine(
        long, lambda: nested.append(engine(others[len(nested) % 2])), ctypes.c_int(wanted)
    )
    assert torch.equal(hidden, expected_long)
    fewest = encoder.config.num_layers
    if wanted:
        assert len(nested) > (3 * fewest if sum(lengths) > 4000 else fewest)
    else:
        assert len(nested) == fewest
    for place, result in enumerate(nested):
        assert torch.equal(result, expected_others[place % 2])


def test_what_a_pause_raises_ends_the_pass(engines: dict[str, Engine]) -> None:
    calls: list[int] = []

    def pause() -> None:
        calls.append(len(calls))
        if len(calls) == 3:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        engines["float32"](batch_of([50]), pause)
    assert calls == [0, 1, 2]
    assert torch.equal(engines["float32"](batch_of([50])), engines["float32"](batch_of([50])))
