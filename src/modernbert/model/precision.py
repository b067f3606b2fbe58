"""Which precision a device computes in, and whether the C kernels do it."""

from typing import Literal

import torch

from modernbert.errors import ConfigError
from modernbert.model.config import EncoderConfig
from modernbert.model.native.engine import Precision, supports
from modernbert.model.native.loading import has_bfloat16

PrecisionChoice = Literal["auto", "float32", "bfloat16", "int8"]


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
