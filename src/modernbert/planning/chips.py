"""What chips can do, by their vendors' datasheets."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from modernbert.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One device of a kind, by its datasheet.

    Attributes:
        name: The name that its vendor gives it.
        bfloat16_tflops: The peak of dense matrix products with float32 sums; None where it has no
            units for bfloat16 and trains in float32.
        float32_tflops: The peak in float32 proper; torch does not take TF32 unless it is told to.
        memory_gb: Its memory in 10^9 bytes; None for a CPU, whose memory is what was put in.
        bandwidth_gb_per_second: The speed of that memory. Nothing is computed from it, but a chip
            with little of it for its TFLOP/s reaches a smaller share of them.
        link_gb_per_second: What it sends to another chip of its machine, in one direction: NVLink
            where the chip has it, else PCIe with 16 lanes. None for a CPU.
    """

    name: str
    bfloat16_tflops: float | None
    float32_tflops: float | None
    memory_gb: float | None
    bandwidth_gb_per_second: float | None
    link_gb_per_second: float | None

    @property
    def has_float8(self) -> bool:
        """Whether it has float8 products, as NVIDIA's do since Ada, at twice bfloat16's rate."""
        return self.name in _WITH_FLOAT8

    @property
    def is_cpu(self) -> bool:
        """Whether its kernels are those for CPUs."""
        return self.memory_gb is None


_WITH_FLOAT8 = {
    *("B200", "H200 SXM", "H100 SXM", "H100 PCIe"),
    *("L40S", "L4", "GeForce RTX 5090", "GeForce RTX 4090"),
}


def _chip(
    name: str,
    bfloat16: float | None,
    float32: float,
    memory_gb: float,
    bandwidth: float,
    link: float,
) -> Chip:
    return Chip(
        name=name,
        bfloat16_tflops=bfloat16,
        float32_tflops=float32,
        memory_gb=memory_gb,
        bandwidth_gb_per_second=bandwidth,
        link_gb_per_second=link,
    )


# Datasheets print the peak "with sparsity", which is twice the dense one that stands here, and the
# rate of a link in both directions together, which is twice that of one.
CHIPS: Mapping[str, Chip] = {
    # NVIDIA DGX B200 datasheet, an eighth of it: bfloat16 18 PFLOP/s dense, 1,440 GB, 64 TB/s.
    "b200": _chip("B200", 2250.0, 75.0, 180.0, 8000.0, 900.0),
    # NVIDIA H200 datasheet, SXM column: bfloat16 1,979 with sparsity, float32 67.
    "h200": _chip("H200 SXM", 989.4, 67.0, 141.0, 4800.0, 450.0),
    # NVIDIA H100 datasheet, SXM column: bfloat16 1,979 with sparsity (989.4 in the architecture's
    # whitepaper), float32 67.
    "h100": _chip("H100 SXM", 989.4, 67.0, 80.0, 3350.0, 450.0),
    # NVIDIA H100 datasheet, PCIe column: bfloat16 1,513 with sparsity, float32 51.
    "h100-pcie": _chip("H100 PCIe", 756.5, 51.0, 80.0, 2000.0, 64.0),
    # NVIDIA A100 datasheet, the 80 GB SXM column: bfloat16 312 | 624 with sparsity.
    "a100": _chip("A100 SXM 80 GB", 312.0, 19.5, 80.0, 2039.0, 300.0),
    # NVIDIA A100 datasheet, the 40 GB column.
    "a100-40gb": _chip("A100 40 GB", 312.0, 19.5, 40.0, 1555.0, 300.0),
    # NVIDIA L40S datasheet: bfloat16 362.05 | 733 with sparsity.
    "l40s": _chip("L40S", 362.05, 91.6, 48.0, 864.0, 32.0),
    # NVIDIA L4 datasheet: bfloat16 242 with sparsity, float32 30.3.
    "l4": _chip("L4", 121.0, 30.3, 24.0, 300.0, 32.0),
    # NVIDIA A10 datasheet: bfloat16 125 | 250 with sparsity.
    "a10": _chip("A10", 125.0, 31.2, 24.0, 600.0, 32.0),
    # NVIDIA A10G datasheet (the A10 of AWS's g5): bfloat16 70 | 140 with sparsity.
    "a10g": _chip("A10G", 70.0, 35.0, 24.0, 600.0, 32.0),
    # NVIDIA RTX Blackwell GPU architecture whitepaper, appendix: bfloat16 with float32 sums 209.5.
    "rtx5090": _chip("GeForce RTX 5090", 209.5, 104.8, 32.0, 1792.0, 64.0),
    # NVIDIA Ada GPU architecture whitepaper, appendix: bfloat16 with float32 sums 165.2.
    "rtx4090": _chip("GeForce RTX 4090", 165.2, 82.6, 24.0, 1008.0, 32.0),
    # NVIDIA Ampere GA102 whitepaper, appendix: bfloat16 with float32 sums 71.
    "rtx3090": _chip("GeForce RTX 3090", 71.0, 35.6, 24.0, 936.0, 32.0),
    # NVIDIA V100 datasheet, SXM2 with 32 GB; its tensor cores know float16 alone.
    "v100": _chip("V100 SXM2 32 GB", None, 15.7, 32.0, 900.0, 150.0),
    # NVIDIA T4 datasheet; its tensor cores know float16 and integers alone.
    "t4": _chip("T4", None, 8.1, 16.0, 320.0, 16.0),
    # Whatever it is: its peak is to be measured and given.
    "cpu": Chip(
        name="CPU",
        bfloat16_tflops=None,
        float32_tflops=None,
        memory_gb=None,
        bandwidth_gb_per_second=None,
        link_gb_per_second=None,
    ),
}


def find_chip(name: str) -> Chip:
    """Find a chip by its name, whatever the case, spaces and dashes.

    >>> find_chip("H100").name, find_chip("RTX 4090").name
    ('H100 SXM', 'GeForce RTX 4090')

    Raises:
        InputError: The name is not known; the message has the nearest known ones.
    """
    by_plain_name = {_plain(known): chip for known, chip in CHIPS.items()}
    if chip := by_plain_name.get(_plain(name)):
        return chip
    near = difflib.get_close_matches(name.lower(), CHIPS, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(CHIPS)}"
    raise InputError(f"kind: got {name!r}, which is not known; {meant}")


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
