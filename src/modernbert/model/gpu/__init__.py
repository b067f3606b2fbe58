"""Triton kernels: attention within a window, GeGLU, norms, rotation, the loss; where they run.

A kernel is an operator of torch's, with its gradients, so that compiled layers call it as it is.
The modules here import Triton and are imported only where that is ready.
"""

import functools
import importlib

import torch
from torch import Tensor

from modernbert.devices import has_triton

HALF = (torch.float16, torch.bfloat16)
HEAD_SIZES = (16, 32, 64, 128)  # that local attention is made for
MAX_TOKENS = 64 * 65_535  # that it takes: a program has 64 rows, and a grid 65,535 of them


def is_ready(values: Tensor) -> bool:
    """Return whether the kernels take a tensor like this one."""
    return values.is_cuda and values.dtype in HALF and has_kernels(values.device)


def has_kernels(device: torch.device) -> bool:
    """Return whether the kernels run on a device; they are imported then.

    To be asked before a compiled function, not in it.
    """
    return device.type == "cuda" and _import_kernels(device)


@functools.cache
def _import_kernels(device: torch.device) -> bool:
    if not has_triton(device):
        return False
    for name in ("add_norm", "cross_entropy", "geglu", "local_attention", "rotation"):
        importlib.import_module(f"modernbert.model.gpu.{name}")
    return True
