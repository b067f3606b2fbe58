"""One step of AdamW or StableAdamW over all tensors in one call of the C kernels."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch

from modernbert.model.native.loading import library

_BLOCK = 16384


class _Described(ctypes.Structure):
    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p),
        ("mean", ctypes.c_void_p),
        ("square", ctypes.c_void_p),
        ("count", ctypes.c_long),
        ("new_mean", ctypes.c_float),
        ("new_square", ctypes.c_float),
        ("eps", ctypes.c_float),
        ("rate", ctypes.c_float),
        ("decay", ctypes.c_float),
        ("is_clipped", ctypes.c_long),
    )


def update(updates: Sequence[Any]) -> list[bool]:
    """Change weights and averages in place, where the kernels can.

    Args:
        updates: One `TensorUpdate` of `training/optimizer.py` for each tensor.

    Returns:
        Whether each was done; the others are float64, on a GPU, or not contiguous.
    """
    kernels = library()
    done = [kernels is not None and _suits(each) for each in updates]
    ours = [each for each, is_done in zip(updates, done, strict=True) if is_done]
    if kernels is not None and ours:
        described = (_Described * len(ours))(*map(_describe, ours))
        largest = max(each.weight.numel() for each in ours)
        sums = torch.empty(-(-largest // _BLOCK), dtype=torch.float64)
        kernels.modernbert_update(
            described,
            ctypes.c_long(len(ours)),
            ctypes.c_void_p(sums.data_ptr()),
            ctypes.c_long(torch.get_num_threads()),
        )
    return done


def _suits(each: Any) -> bool:
    return each.weight.numel() > 0 and all(
        values.is_contiguous()
        and values.dtype is torch.float32
        and values.device.type == "cpu"
        and values.layout is torch.strided
        for values in (each.weight, each.gradient, each.mean, each.square)
    )


def _describe(each: Any) -> _Described:
    return _Described(
        weight=each.weight.data_ptr(),
        gradient=each.gradient.data_ptr(),
        mean=each.mean.data_ptr(),
        square=each.square.data_ptr(),
        count=each.weight.numel(),
        new_mean=each.new_mean,
        new_square=each.new_square,
        eps=each.eps,
        rate=each.rate,
        decay=each.decay,
        is_clipped=each.is_clipped,
    )
