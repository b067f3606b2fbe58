"""The encoder with oneDNN's products, forced where there is no AMX, against the one in torch."""

from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from tests.model.conftest import kernels
from tests.model.native.test_engine import batch_of, expected, small_encoder
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.model.encoder import Encoder
from modernbert.model.native import loading
from modernbert.model.native.engine import Engine, Precision
from modernbert.model.native.functions import quantize
from modernbert.model.native.onednn import OneDnnEngine, engine_for
from modernbert.model.rope_scaling import RopeScaling

LENGTHS = [[1], [50, 3], [300, 129, 64, 65, 1], [1200]]
HAS_VARIANT = any(variant.name == "avx512-bf16" for variant in loading.this_machine().usable())

pytestmark = [
    pytest.mark.skipif(not HAS_VARIANT, reason="needs the variant avx512-bf16"),
    pytest.mark.usefixtures("amx"),
]


@pytest.fixture(scope="module")
def amx() -> Iterator[None]:
    with kernels("amx"):
        if not loading.takes_onednn():
            pytest.skip("this build of torch has no oneDNN")
        yield


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return small_encoder()


@pytest.fixture(scope="module")
def engines(encoder: Encoder, amx: None) -> dict[str, OneDnnEngine]:  # noqa: ARG001
    return {"bfloat16": OneDnnEngine(encoder, "bfloat16"), "int8": OneDnnEngine(encoder, "int8")}


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_bfloat16_is_close(
    encoder: Encoder, engines: dict[str, OneDnnEngine], lengths: list[int]
) -> None:
    assert_as_close_as_torch(encoder, engines["bfloat16"], batch_of(lengths))


def assert_as_close_as_torch(encoder: Encoder, engine: OneDnnEngine, batch: PackedBatch) -> None:
    """No further from float32 than the torch modules under autocast, and a little."""
    reference = expected(encoder, batch)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        usual = (encoder(batch) - reference).square().mean().sqrt()
    error = (engine(batch) - reference).square().mean().sqrt()
    assert error <= 1.2 * usual


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_int8_is_close(
    encoder: Encoder, engines: dict[str, OneDnnEngine], lengths: list[int]
) -> None:
    batch = batch_of(lengths)
    similarity = functional.cosine_similarity(
        engines["int8"](batch), expected(encoder, batch), dim=1
    )
    assert similarity.min() > 0.998


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_stretched_angles(kind: Literal["linear", "yarn"]) -> None:
    scaling = RopeScaling(kind=kind, factor=8.0, original_max_seqlen=64)
    stretched, batch = small_encoder(global_scaling=scaling), batch_of([300, 20])
    assert_as_close_as_torch(stretched, OneDnnEngine(stretched, "bfloat16"), batch)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_text_does_not_depend_on_its_neighbours(
    engines: dict[str, OneDnnEngine], precision: str
) -> None:
    alone, together = batch_of([40]), batch_of([40, 200, 3])
    first = engines[precision](together)[:40]
    assert torch.allclose(engines[precision](alone), first, rtol=0, atol=2e-2)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_model_takes_it(precision: Precision) -> None:
    ready = small_encoder().for_inference(precision)
    assert isinstance(ready.engine, OneDnnEngine)
    assert isinstance(engine_for(small_encoder(), "float32"), Engine)
    assert loading.variant_name() == "amx"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_quantized_each_by_its_own_scale(dtype: torch.dtype) -> None:
    rows = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows[1] *= 1000
    rows[2] = 0
    whole, scales = quantize(rows)
    restored = (whole.float() - 128) * scales[:, None]
    assert torch.all((restored - rows.float()).abs() <= 0.501 * scales[:, None])
    assert scales[1] == pytest.approx(float(rows[1].abs().max()) / 127)


def test_pauses(encoder: Encoder, engines: dict[str, OneDnnEngine]) -> None:
    """Other batches in the pauses change nothing, and what a pause raises ends the pass."""
    engine, batch = engines["bfloat16"], batch_of([300, 20])
    alone, others = engine(batch), []
    assert torch.equal(engine(batch, lambda: others.append(engine(batch_of([7])))), alone)
    assert len(others) == encoder.config.num_layers
    with pytest.raises(ZeroDivisionError):
        engine(batch, lambda: 1 // 0)  # type: ignore[arg-type, return-value]


def test_no_token(engines: dict[str, OneDnnEngine]) -> None:
    with pytest.raises(InputError, match="at least one token"):
        engines["int8"](PackedBatch.from_sequences([[]]))
