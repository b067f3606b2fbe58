"""The numbers that a plan is made from: chips, one phase of a training, and its processes."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le

from modernbert.data.packing import NUM_SPECIAL
from modernbert.errors import InputError
from modernbert.model.config import EncoderConfig, flops_per_token
from modernbert.planning.lengths import WEB, DocumentLengths
from modernbert.settings import Doc, OptimizerName, Settings, TrainingPrecision

_NUM_ITERATIONS = 5
GPUS_OF_A_MACHINE = 8
NETWORK_GB_PER_SECOND = 50.0  # of each GPU: 400 Gbit/s, as in NVIDIA's DGX H100


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


def layer_matrices(config: EncoderConfig) -> Iterator[tuple[int, int]]:
    """Yield the shapes of one layer's matrices, in the parts in which Muon takes them."""
    width, inner = config.hidden_size, config.intermediate_size
    yield from [(width, width)] * 4  # queries, keys, values, and the attention's output
    yield from [(inner, width)] * 2
    yield width, inner


def num_matrix_parameters(config: EncoderConfig) -> int:
    """Return the parameters of all layers' matrices."""
    return config.num_layers * sum(rows * columns for rows, columns in layer_matrices(config))


def orthogonalizing_flops(config: EncoderConfig) -> float:
    """Count the operations of Muon's products in a step, three a matrix in each iteration."""
    flops = 0.0
    for shape in layer_matrices(config):
        short, long = sorted(shape)
        flops += _NUM_ITERATIONS * (4 * short**2 * long + 2 * short**3)
    return config.num_layers * flops


@dataclass(frozen=True, kw_only=True)
class Phase(Settings):
    """Training with one longest sequence; a recipe of several phases is planned phase by phase.

    Raises:
        SettingsError: A number is out of its range.
    """

    name: Annotated[str, Doc("What the plan calls the phase.")]
    config: EncoderConfig
    total_tokens: Annotated[int, Ge(1), Doc("Tokens seen, [CLS] and [SEP] included.")]
    max_seqlen: Annotated[
        int, Ge(NUM_SPECIAL + 1), Doc("Longer documents are cut into pieces of this length.")
    ]
    tokens_per_step: Annotated[
        int, Ge(1), Doc("Tokens of a step in all processes together; the mean where it grows.")
    ]
    micro_batch_tokens: Annotated[
        int, Ge(1), Doc("Tokens that go through the model of one process at once.")
    ]
    max_logits_bytes: Annotated[
        int, Ge(1), Doc("Bytes of float32 predictions that are in memory at a time.")
    ]
    mask_rate: Annotated[
        float, Gt(0), Le(1), Doc("The share of the tokens that are predicted, and reach the head.")
    ] = 0.3
    dropout: Annotated[bool, Doc("Whether there is dropout, whose masks are kept.")] = True
    lengths: DocumentLengths = WEB
    precision: Annotated[TrainingPrecision, Doc("As in a recipe.")] = "auto"
    optimizer: Annotated[OptimizerName, Doc("As in a recipe.")] = "stable-adamw"
    keep_checkpoints: Annotated[int, Ge(0), Doc("How many checkpoints stay on the disk.")] = 2

    @property
    def num_steps(self) -> int:
        """The number of steps with full bins; real bins are full within half a percent."""
        return -(-self.total_tokens // self.tokens_per_step)

    def forward_flops_per_token(self, *, head: bool = True) -> float:
        """Count the operations of a forward for one token, on average over the phase's tokens.

        [CLS] and [SEP] are never masked. See `model.flops` for what is counted.

        Args:
            head: Whether the masked language model's head counts.
        """
        pieces = self.lengths.pieces(self.max_seqlen)
        total = 0.0
        for length, share in zip(pieces.lengths.tolist(), pieces.shares.tolist(), strict=True):
            masked = self.mask_rate * (length - NUM_SPECIAL) / length if head else 0.0
            total += share * flops_per_token(self.config, length, masked_share=masked)
        return total

    def training_flops_per_token(self, *, recompute: bool = False) -> float:
        """Count the operations of a training step for one token.

        They are three times those of a forward, as the backward makes two products for each of the
        forward's.

        Args:
            recompute: Whether the encoder's forward is done once more in the backward.
        """
        again = self.forward_flops_per_token(head=False) if recompute else 0.0
        return 3 * self.forward_flops_per_token() + again

    def float8_flops_per_token(self) -> float:
        """Count the operations of a training step for one token that are in float8.

        They are the products of `model.float8`: forward, and the gradients of the inputs.
        """
        if self.precision != "float8":
            return 0.0
        width, inner = self.config.hidden_size, self.config.intermediate_size
        return 2 * 2 * self.config.num_layers * (3 * width * width + 3 * width * inner)

    def optimizer_flops_per_token(self, num_processes: int) -> float:
        """Count the operations of the optimizer's products per token of a step.

        Only Muon has such products, which every process computes for all matrices.

        Args:
            num_processes: The number of processes; each has its share of the step's tokens.
        """
        if self.optimizer != "muon":
            return 0.0
        return num_processes * orthogonalizing_flops(self.config) / self.tokens_per_step


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The processes that train, one a chip, and how they share the work.

    Attributes:
        chip: What each process runs on.
        share_of_peak: The fraction of the chip's peak that training reaches, counted as `Phase`
            counts operations.
        num_gpus: The number of processes.
        sharded: Whether weights, gradients and optimizer are spread over the processes (fully
            sharded) instead of being whole in each (data parallel).
        recompute: Whether activations are computed again in the backward instead of kept.
        peak_tflops: A peak in place of the chip's own.
        price_per_gpu_hour: A price in any currency; None where no cost is asked for.
        link_gb_per_second: What a process sends to the others, in one direction, in place of what
            the chip's own link and, from one machine to another, the network are taken to reach.

    Raises:
        InputError: A number is out of its range.
    """

    chip: Chip
    share_of_peak: float
    num_gpus: int = 1
    sharded: bool = False
    recompute: bool = False
    peak_tflops: float | None = None
    price_per_gpu_hour: float | None = None
    link_gb_per_second: float | None = None

    def __post_init__(self) -> None:
        if self.num_gpus < 1:
            raise InputError(f"gpus: got {self.num_gpus}, expected 1 or more")
        if not 0 < self.share_of_peak <= 1:
            raise InputError(f"share: got {self.share_of_peak}, expected above 0, at most 1")
        if self.peak_tflops is not None and not 0 < self.peak_tflops < float("inf"):
            raise InputError(f"peak: got {self.peak_tflops}, expected TFLOP/s above 0")
        if self.price_per_gpu_hour is not None and not self.price_per_gpu_hour >= 0:
            raise InputError(f"price: got {self.price_per_gpu_hour}, expected 0 or more")
        if self.link_gb_per_second is not None and not self.link_gb_per_second > 0:
            raise InputError(f"link: got {self.link_gb_per_second}, expected GB/s above 0")

    def in_bfloat16(self, precision: TrainingPrecision) -> bool:
        """Tell whether products are done in bfloat16.

        `auto` takes it where a GPU has units for it. CPUs differ in that, so for a CPU that has
        them the precision must be "bfloat16" here.

        Raises:
            InputError: Bfloat16 or float8 is asked for, and the chip lacks it.
        """
        if precision == "bfloat16" and self.chip.bfloat16_tflops is None and not self.chip.is_cpu:
            raise InputError(
                f'precision: got "bfloat16", which {self.chip.name} lacks; use "float32" or "auto"'
            )
        if precision == "float8" and not self.chip.has_float8:
            raise InputError(
                f'precision: got "float8", which {self.chip.name} lacks; use "bfloat16" or "auto"'
            )
        if self.chip.is_cpu:
            return precision == "bfloat16"
        return precision != "float32" and self.chip.bfloat16_tflops is not None

    def peak_flops_per_second(self, precision: TrainingPrecision) -> float:
        """Return the peak of one chip in the format that `precision` comes to on it.

        Raises:
            InputError: The chip's peak is not known, and none is given.
        """
        bfloat16 = self.in_bfloat16(precision)
        tflops = self.chip.bfloat16_tflops if bfloat16 else self.chip.float32_tflops
        tflops = self.peak_tflops or tflops
        if tflops is None:
            raise InputError(
                f"peak: not known for {self.chip.name}; give the TFLOP/s of a large matrix "
                "product that you have measured there"
            )
        return tflops * 1e12

    def link_bytes_per_second(self) -> float:
        """Return the rate at which a process sends to the others, in one direction.

        Processes on several machines are as fast as the network between these.

        Raises:
            InputError: The rate is not known, as on a CPU, and none is given.
        """
        rate = self.link_gb_per_second or self.chip.link_gb_per_second
        if rate is None:
            raise InputError(
                f"link: not known for {self.chip.name}; give the GB/s that a process sends to the "
                "others"
            )
        if self.link_gb_per_second is None and self.num_gpus > GPUS_OF_A_MACHINE:
            rate = min(rate, NETWORK_GB_PER_SECOND)
        return rate * 1e9
