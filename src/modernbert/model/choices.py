"""What a device computes with: which precision, and which back end of attention."""

import functools
import importlib
from typing import Literal, get_args

import torch

from modernbert.devices import has_triton, is_since_ampere
from modernbert.errors import ConfigError
from modernbert.model.config import EncoderConfig
from modernbert.model.native.engine import Precision, supports
from modernbert.model.native.loading import has_bfloat16

PrecisionChoice = Literal["auto", "float32", "bfloat16", "int8"]

AttentionChoice = Literal["auto", "varlen", "flash3", "flex", "blocks"]
"""`auto` takes what was measured to be fastest (docs/gpu.md): on GPUs that have it `varlen`, in
local layers our Triton kernels; `blocks` elsewhere, and on CPUs the C kernels. Where
FlashAttention 3 is installed on a Hopper, `flash3` takes the place of `varlen`, which goes by what
its authors measured and not by figures of ours."""

_HOPPER = (9, 0)


def choose_precision(
    config: EncoderConfig, precision: PrecisionChoice, device: torch.device
) -> tuple[Precision, bool]:
    """Return the precision to compute in, and whether the C kernels can do it here.

    Raises:
        ConfigError: No such precision, or int8 where the CPU or the sizes do not allow it.
    """
    if precision not in ("auto", "float32", "bfloat16", "int8"):
        raise ConfigError(f"precision: got {precision!r}, expected auto, float32, bfloat16 or int8")
    chosen = _fastest(device) if precision == "auto" else precision
    packed = device.type == "cpu" and supports(config, chosen)
    if chosen == "int8" and not packed:
        raise ConfigError(
            "precision: int8 needs the C kernels (see `modernbert info --machine`), heads of 64, "
            'an intermediate size that is a multiple of 32, and layers as in the paper; use "auto"'
        )
    return chosen, packed


def _fastest(device: torch.device) -> Precision:
    if device.type == "cuda":
        is_fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        is_fast = device.type == "cpu" and has_bfloat16()
    return "bfloat16" if is_fast else "float32"


def choose_attention(choice: AttentionChoice, device: torch.device) -> AttentionChoice:
    """Return the same choice, once it is sure that the device can do it.

    Raises:
        ConfigError: No such back end, or one that this device or this installation lacks.
    """
    if choice not in get_args(AttentionChoice):
        names = ", ".join(get_args(AttentionChoice))
        raise ConfigError(f"attention: got {choice!r}, expected one of {names}")
    if choice == "varlen" and not has_varlen(device):
        raise ConfigError(
            f'attention: "varlen" needs an NVIDIA GPU since Ampere, got {device}; use "auto"'
        )
    if choice == "flash3" and not has_flash3(device):
        raise ConfigError(
            'attention: "flash3" needs an NVIDIA GPU of the generation Hopper and the package '
            f'flash_attn_interface of FlashAttention 3, got {device}; use "auto"'
        )
    return choice


def has_varlen(device: torch.device) -> bool:
    """Return whether `varlen` runs on a device."""
    return is_since_ampere(device)


@functools.cache
def has_flash3(device: torch.device) -> bool:
    """Return whether `flash3` runs on a device: on Hopper, where its kernels are installed."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) != _HOPPER:
        return False
    try:
        importlib.import_module("flash_attn_interface")
    except (ImportError, OSError, RuntimeError):  # absent, or built for another torch
        return False
    return all(hasattr(torch.ops.flash_attn_3, name) for name in ("fwd", "bwd"))


def describe_attention(device: torch.device) -> str:
    """Return what `auto` takes on a device in half precision, in words."""
    if not has_varlen(device):
        return "the C kernels, or blocks" if device.type == "cpu" else "blocks"
    everywhere = "flash3" if has_flash3(device) else "varlen"
    return f"{everywhere}, local layers by Triton" if has_triton(device) else everywhere
