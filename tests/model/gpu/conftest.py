"""Where Triton's kernels are tested: a GPU, or with TRITON_INTERPRET=1 its interpreter."""

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("no CUDA device; TRITON_INTERPRET=1 tries the kernels on a CPU")
    return torch.device("cpu")
