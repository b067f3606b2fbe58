"""What the paper's own runs took, to hold plans against and to take a share of the peak from."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from modernbert.model.config import EncoderConfig
from modernbert.planning.chips import CHIPS
from modernbert.planning.lengths import LONG, WEB, DocumentLengths
from modernbert.planning.phase import Machine, Phase
from modernbert.planning.plan import fitted_share

_MAX_LOGITS_BYTES = 1 << 29

# Tokens, longest sequence, packed rows a step of base and large (P table 3), and the lengths that
# are taken for its documents: the paper says how they were sampled, and not how long they were.
_PHASES: tuple[tuple[str, int, int, tuple[int, int], DocumentLengths], ...] = (
    ("pretraining", 1_719_000_000_000, 1_024, (4_608, 4_928), WEB),
    ("extension", 250_000_000_000, 8_192, (576, 616), LONG),
    ("decay", 50_000_000_000, 8_192, (576, 624), LONG),
)
# Hours on 8 H100 (P appendix Training Settings, table 3).
_HOURS = {"base": (191.1, 36.3, 7.5), "large": (420.4, 75.1, 15.3)}


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """A phase that was trained, and the hours that it took on a machine.

    Attributes:
        size: `base` or `large`.
        phase: What was trained.
        machine: What it was trained on.
        hours: How long it took.
    """

    size: str
    phase: Phase
    machine: Machine
    hours: float

    @property
    def share_of_peak(self) -> float:
        """What the run reached, counted as plans are."""
        return fitted_share(self.phase, self.machine, self.hours)


def published_runs(lengths: DocumentLengths | None = None) -> Iterator[PublishedRun]:
    """The paper's six phases.

    lengths: of all phases' documents, in place of those that are taken for each.
    """
    machine = Machine(chip=CHIPS["h100"], num_gpus=8, share_of_peak=1.0)
    for column, (size, all_hours) in enumerate(_HOURS.items()):
        config = EncoderConfig.preset(size)
        for (name, tokens, longest, rows, typical), hours in zip(_PHASES, all_hours, strict=True):
            phase = Phase(
                name=name,
                config=config,
                total_tokens=tokens,
                max_seqlen=longest,
                tokens_per_step=rows[column] * longest,
                micro_batch_tokens=12 * 8_192,
                max_logits_bytes=_MAX_LOGITS_BYTES,
                lengths=lengths or typical,
            )
            yield PublishedRun(size=size, phase=phase, machine=machine, hours=hours)


@cache
def first_phases() -> tuple[PublishedRun, ...]:
    """The pretraining of base and of large."""
    return tuple(run for run in published_runs() if run.phase.name == "pretraining")


def nearest_run(config: EncoderConfig) -> PublishedRun:
    """The pretraining of the published size that is nearest in width.

    Wider models reach more of the peak: their products are larger, and what is not a product
    weighs less beside them.
    """
    return min(
        first_phases(), key=lambda run: abs(run.phase.config.hidden_size - config.hidden_size)
    )
