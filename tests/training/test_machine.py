"""The account of the machine: numbers of the right size, and nothing of the run is touched."""

import json

import pytest
import torch

from modernbert.training import log
from modernbert.training.log import describe_machine, matmul_flops_per_second, peak_memory_bytes

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_SECONDS", 0.02)
    monkeypatch.setattr(log, "_CPU_SIZE", 128)
    matmul_flops_per_second.cache_clear()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_speed_is_that_of_a_computer(dtype: torch.dtype) -> None:
    assert 1e6 < matmul_flops_per_second(CPU, dtype) < 1e18


@pytest.mark.usefixtures("small")
def test_measuring_leaves_the_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    matmul_flops_per_second(CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


def test_memory_is_counted_in_bytes() -> None:
    assert 50e6 < peak_memory_bytes(CPU) < 1e12


def test_the_description_is_plain() -> None:
    described = describe_machine(CPU)
    assert json.loads(json.dumps(described)) == described
    assert described["versions"]["torch"] == torch.__version__ and described["device"]
