"""The numbers that a plan is made from: one phase of a training, and the processes that train."""

from dataclasses import dataclass

from modernbert.data.packing import NUM_SPECIAL
from modernbert.errors import InputError, SettingsError
from modernbert.model.config import EncoderConfig
from modernbert.model.flops import flops_per_token
from modernbert.planning.chips import Chip
from modernbert.planning.lengths import WEB, DocumentLengths
from modernbert.training.precision import Precision


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Training with one longest sequence; a recipe of several phases is planned phase by phase.

    name: for whoever reads the plan.
    config: the model.
    total_tokens: seen in this phase, [CLS] and [SEP] included.
    max_seqlen: longer documents are cut into pieces of this length.
    tokens_per_step: in all processes together; where it grows, its mean.
    micro_batch_tokens: that go through one process's model at once.
    max_logits_bytes: of the predictions, counted in float32, that are in memory at a time.
    mask_rate: of the tokens; these alone go through the head and the vocabulary.
    dropout: whether there is any, for its masks are kept.
    lengths: of the documents.
    precision: as in a recipe.
    keep_checkpoints: how many stay on the disk.

    Raises:
        SettingsError: a number out of its range.
    """

    name: str
    config: EncoderConfig
    total_tokens: int
    max_seqlen: int
    tokens_per_step: int
    micro_batch_tokens: int
    max_logits_bytes: int
    mask_rate: float = 0.3
    dropout: bool = True
    lengths: DocumentLengths = WEB
    precision: Precision = "auto"
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        for name in ("total_tokens", "tokens_per_step", "micro_batch_tokens", "max_logits_bytes"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name}: got {getattr(self, name)}, expected 1 or more")
        if self.max_seqlen <= NUM_SPECIAL:
            raise SettingsError(f"max_seqlen: got {self.max_seqlen}, expected 3 or more")
        if not 0 < self.mask_rate <= 1:
            raise SettingsError(f"mask_rate: got {self.mask_rate}, expected above 0, at most 1")

    @property
    def num_steps(self) -> int:
        """Steps with bins that are full; real ones are so within half a percent."""
        return -(-self.total_tokens // self.tokens_per_step)

    def forward_flops_per_token(self, *, head: bool = True) -> float:
        """Of a forward, on average over the tokens of the phase; see `model.flops`.

        [CLS] and [SEP] are never masked.
        """
        pieces = self.lengths.pieces(self.max_seqlen)
        total = 0.0
        for length, share in zip(pieces.lengths.tolist(), pieces.shares.tolist(), strict=True):
            masked = self.mask_rate * (length - NUM_SPECIAL) / length if head else 0.0
            total += share * flops_per_token(self.config, length, masked_share=masked)
        return total

    def training_flops_per_token(self, *, recompute: bool = False) -> float:
        """Three times a forward: the backward makes two products for each of the forward.

        recompute: whether the encoder's forward is done once more in the backward.
        """
        again = self.forward_flops_per_token(head=False) if recompute else 0.0
        return 3 * self.forward_flops_per_token() + again


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The processes that train, one a chip, and how they share the work.

    share_of_peak: the fraction of the chip's peak that training reaches, counted as `Phase` counts.
    sharded: whether weights, gradients and optimizer are spread over the processes (fully sharded)
        instead of being whole in each (data parallel).
    recompute: whether activations are computed again in the backward instead of kept.
    peak_tflops: in place of the chip's own.
    price_per_gpu_hour: None where no cost is asked for.

    Raises:
        InputError: a number out of its range.
    """

    chip: Chip
    share_of_peak: float
    num_gpus: int = 1
    sharded: bool = False
    recompute: bool = False
    peak_tflops: float | None = None
    price_per_gpu_hour: float | None = None

    def __post_init__(self) -> None:
        if self.num_gpus < 1:
            raise InputError(f"gpus: got {self.num_gpus}, expected 1 or more")
        if not 0 < self.share_of_peak <= 1:
            raise InputError(f"share: got {self.share_of_peak}, expected above 0, at most 1")
        if self.peak_tflops is not None and not 0 < self.peak_tflops < float("inf"):
            raise InputError(f"peak: got {self.peak_tflops}, expected TFLOP/s above 0")
        if self.price_per_gpu_hour is not None and not self.price_per_gpu_hour >= 0:
            raise InputError(f"price: got {self.price_per_gpu_hour}, expected 0 or more")

    def in_bfloat16(self, precision: Precision) -> bool:
        """Whether products are done in bfloat16; `auto` takes it where a GPU has units for it.

        CPUs differ in that: for one that has them, the precision must be "bfloat16" here.

        Raises:
            InputError: bfloat16 is asked for, and a GPU lacks it.
        """
        if precision == "bfloat16" and self.chip.bfloat16_tflops is None and not self.chip.is_cpu:
            raise InputError(
                f'precision: got "bfloat16", which {self.chip.name} lacks; take "float32" or "auto"'
            )
        if self.chip.is_cpu:
            return precision == "bfloat16"
        return precision != "float32" and self.chip.bfloat16_tflops is not None

    def peak_flops_per_second(self, precision: Precision) -> float:
        """Of one chip, in the format that `precision` comes to on it.

        Raises:
            InputError: the chip's peak is not known, and none is given.
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
