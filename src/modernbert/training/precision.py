"""Which number format a device computes in; the weights are float32 in any case.

Under autocast the matrix products take bfloat16. What stays float32 is what starts from float32:
the residual stream, so the norms on it, on CUDA and on the CPU alike. Softmax and the loss are
widened by CUDA's autocast alone; on the CPU they keep the format of their input, so a loss takes
`logits.float()`.
"""

import torch

from modernbert.choices import TrainingPrecision
from modernbert.errors import SettingsError


def autocast(device: torch.device | str, precision: TrainingPrecision) -> torch.autocast:
    """A context in which `device` computes in `precision`.

    Raises:
        SettingsError: bfloat16 on a CUDA device that lacks it.
    """
    device = torch.device(device)
    dtype = compute_dtype(device, precision)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16)


def compute_dtype(device: torch.device | str, precision: TrainingPrecision) -> torch.dtype:
    """torch.float32 or torch.bfloat16; `auto` takes bfloat16 where the device has units for it.

    Raises:
        SettingsError: bfloat16 on a CUDA device that lacks it.
    """
    device = torch.device(device)
    if precision == "float32":
        return torch.float32
    fast = _has_bfloat16_units(device)
    if precision == "bfloat16" and device.type == "cuda" and not fast:
        raise SettingsError(
            f'precision: got "bfloat16", which {torch.cuda.get_device_name(device)} lacks; '
            'take "float32" or "auto"'
        )
    return torch.bfloat16 if fast or precision == "bfloat16" else torch.float32


def _has_bfloat16_units(device: torch.device) -> bool:
    """Whether bfloat16 is faster there, not merely emulated."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
