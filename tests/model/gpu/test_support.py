"""Where the kernels are not taken: on a CPU, on old GPUs, in float32, and without Triton."""

import pytest
import torch

from modernbert.model import gpu as support


def test_not_on_a_cpu() -> None:
    assert not support.is_ready(torch.zeros(2, dtype=torch.bfloat16))
    assert not support.has_kernels(torch.device("cpu"))


@pytest.mark.parametrize(("capability", "has_triton"), [((7, 5), True), ((9, 0), False)])
def test_not_on_old_gpus_and_not_without_triton(
    capability: tuple[int, int], has_triton: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    found = object() if has_triton else None
    monkeypatch.setattr("importlib.util.find_spec", lambda _: found)
    assert not support._import_kernels.__wrapped__(torch.device("cuda", 0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_in_half_precision_alone() -> None:
    ready = [
        support.is_ready(torch.zeros(2, dtype=dtype, device="cuda"))
        for dtype in (torch.bfloat16, torch.float16, torch.float32)
    ]
    assert ready == [True, True, False]
