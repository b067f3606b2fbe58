"""Which back end of attention is taken, and whether a device has it."""

import functools
from typing import Literal, get_args

import torch

from modernbert.devices import is_since_ampere
from modernbert.errors import ConfigError

AttentionChoice = Literal["auto", "varlen", "flash3", "flex", "blocks"]
"""`auto` takes what was measured to be fastest (docs/gpu.md): on GPUs that have it `varlen`, in
local layers our Triton kernels; `blocks` elsewhere, and on CPUs the C kernels.
`flash3` has not been measured."""


def choose_attention(choice: AttentionChoice, device: torch.device) -> AttentionChoice:
    """The same choice, once it is sure that the device can do it.

    `flash3` makes torch use these kernels for `varlen` too, in the whole process.

    Raises:
        ConfigError: No such back end, or one that this device or this installation lacks.
    """
    if choice not in get_args(AttentionChoice):
        names = ", ".join(get_args(AttentionChoice))
        raise ConfigError(f"attention: got {choice!r}, expected one of {names}")
    if choice in ("varlen", "flash3") and not has_varlen(device):
        raise ConfigError(
            f'attention: "{choice}" needs an NVIDIA GPU since Ampere, got {device}; use "auto"'
        )
    if choice == "flash3":
        _activate_flash3()
    return choice


def has_varlen(device: torch.device) -> bool:
    """Whether `varlen` runs on a device."""
    return is_since_ampere(device)


@functools.cache
def _activate_flash3() -> None:
    """Put the kernels of FlashAttention 3 behind torch's own operators."""
    try:
        from torch.nn.attention import activate_flash_attention_impl

        activate_flash_attention_impl("FA3")
    except (ImportError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f'attention: "flash3" needs flash_attn_interface of FlashAttention 3 ({error}); '
            'install it, or use "auto"'
        ) from None
