"""One phase on one machine: how long it takes, what it sends and costs; and the paper's runs.

What the processes of a step send to each other is arithmetic on sizes and bandwidths, in the order
in which the trainer sends: see `training/distributed.py` and `training/computation.py`.

    whole copies    Once per step the gradients are summed, after the last backward pass, so all of
                    this time is waited for.
    fully sharded   In every micro-batch the weights of a part are gathered while the part before
                    it is computed, once for the forward and once for the backward pass. In the
                    last backward pass the gradients of a part are scattered as well. Muon then
                    gathers the momentum of the layers' matrices, and waits for it.

A collective among n processes sends (n - 1) / n of its bytes through each chip's link, and a sum
sends them twice (a ring; Patarasuk and Yuan 2009).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from modernbert.model.config import EncoderConfig
from modernbert.planning.lengths import LONG, WEB, DocumentLengths
from modernbert.planning.memory import Memory, averages_bytes, plan_memory
from modernbert.planning.phase import CHIPS, Machine, Phase, num_matrix_parameters

_FLOAT = 4
_SHARE_OF_LINK = 0.75  # that large collectives reach of a datasheet's rate: assumed
_FORWARD_SHARE = 1 / 3  # of a micro-batch's time, as a backward pass has twice the products


@dataclass(frozen=True, kw_only=True)
class Communication:
    """What one process sends in a step.

    Attributes:
        bytes_per_step: The bytes that go out through its link.
        seconds: How long they take.
        waiting_seconds: The part of these seconds in which nothing is computed.
    """

    bytes_per_step: float
    seconds: float
    waiting_seconds: float


def plan_communication(phase: Phase, machine: Machine, seconds: float) -> Communication:
    """Compute what a step sends, and how long that takes.

    Args:
        phase: What is trained.
        machine: What it is trained on.
        seconds: How long the step's computation takes.

    Raises:
        InputError: There are several processes, and the rate of their link is not known.
    """
    if machine.num_gpus == 1:
        return Communication(bytes_per_step=0.0, seconds=0.0, waiting_seconds=0.0)
    rate = _SHARE_OF_LINK * machine.link_bytes_per_second()
    once = (1 - 1 / machine.num_gpus) * _FLOAT * phase.config.num_parameters(head=True)
    if not machine.sharded:
        taken = 2 * once / rate
        return Communication(bytes_per_step=2 * once, seconds=taken, waiting_seconds=taken)
    return _sharded(phase, machine, seconds, once, rate)


def _sharded(
    phase: Phase, machine: Machine, seconds: float, once: float, rate: float
) -> Communication:
    """Count what sharding sends; all parts are taken to be of the same size."""
    at_once = phase.micro_batch_tokens * machine.num_gpus
    num_micro_batches = max(1, -(-phase.tokens_per_step // at_once))
    num_parts = phase.config.num_layers + 1
    transfer = once / rate / num_parts
    forward = seconds / num_micro_batches * _FORWARD_SHARE / num_parts
    backward = seconds / num_micro_batches / num_parts - forward
    waited = num_micro_batches * (
        _waiting(transfer, forward, num_parts) + _waiting(transfer, backward, num_parts)
    )
    # The last backward pass also scatters gradients, those of its last part after its end.
    waited += _waiting(2 * transfer, backward, num_parts) - _waiting(transfer, backward, num_parts)
    momentum = once * _muon_share(phase)  # gathered after the backward pass, with nothing beside it
    sent = (2 * num_micro_batches + 1) * once + momentum
    waited += momentum / rate
    return Communication(bytes_per_step=sent, seconds=sent / rate, waiting_seconds=waited)


def _muon_share(phase: Phase) -> float:
    """The share of the parameters that Muon takes as whole matrices; 0 for other optimizers."""
    if phase.optimizer != "muon":
        return 0.0
    return num_matrix_parameters(phase.config) / phase.config.num_parameters(head=True)


def _waiting(transfer: float, compute: float, num_parts: int) -> float:
    """Seconds that a pass waits if each part is sent while the one before it is computed.

    >>> _waiting(1.0, 5.0, 10), _waiting(3.0, 1.0, 10)
    (1.0, 21.0)
    """
    return transfer + (num_parts - 1) * max(0.0, transfer - compute)


_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """The time, memory and cost of a phase.

    Attributes:
        phase: What is trained.
        machine: What it is trained on.
        flops_per_token: Operations of a training step for a token, recomputed ones included.
        tokens_per_second: The speed of all processes together.
        communication: What a process sends to the others in a step.
        memory: What one process holds.
        model_bytes: The size of the model's folder.
        checkpoint_bytes: The size of a checkpoint, which has weights and optimizer.
        disk_bytes: The size of the run's folder: the checkpoints that stay, one that is being
            written, and the model.
        warnings: What speaks against the plan, a sentence each.
    """

    phase: Phase
    machine: Machine
    flops_per_token: float
    tokens_per_second: float
    communication: Communication
    memory: Memory
    model_bytes: int
    checkpoint_bytes: int
    disk_bytes: int
    warnings: tuple[str, ...]

    @property
    def flops(self) -> float:
        """Operations of the whole phase."""
        return self.flops_per_token * self.phase.total_tokens

    @property
    def hours(self) -> float:
        """The hours of training, without evaluations, checkpoints and starts."""
        return self.phase.total_tokens / self.tokens_per_second / _SECONDS_PER_HOUR

    @property
    def gpu_hours(self) -> float:
        """Hours of all processes together."""
        return self.hours * self.machine.num_gpus

    @property
    def cost(self) -> float | None:
        """The cost in the currency of the price; None without a price."""
        price = self.machine.price_per_gpu_hour
        return None if price is None else self.gpu_hours * price


def plan_phase(phase: Phase, machine: Machine) -> PhasePlan:
    """Compute the time, memory and cost of a phase on a machine.

    Raises:
        InputError: The chip lacks the precision, or its peak or its link is not known.
    """
    flops_per_token = phase.training_flops_per_token(
        recompute=machine.recompute
    ) + phase.optimizer_flops_per_token(machine.num_gpus)
    rate = machine.share_of_peak * machine.peak_flops_per_second(phase.precision)
    as_bfloat16 = flops_per_token - phase.float8_flops_per_token() / 2  # at twice the rate
    seconds = phase.tokens_per_step * as_bfloat16 / (machine.num_gpus * rate)
    communication = plan_communication(phase, machine, seconds)
    memory = plan_memory(phase, machine)
    model = _FLOAT * phase.config.num_parameters(head=True)
    checkpoint = model + averages_bytes(phase)
    return PhasePlan(
        phase=phase,
        machine=machine,
        flops_per_token=flops_per_token,
        tokens_per_second=phase.tokens_per_step / (seconds + communication.waiting_seconds),
        communication=communication,
        memory=memory,
        model_bytes=model,
        checkpoint_bytes=checkpoint,
        disk_bytes=(phase.keep_checkpoints + 1) * checkpoint + model,
        warnings=tuple(_warnings(phase, machine, memory)),
    )


def fitted_share(phase: Phase, machine: Machine, hours: float) -> float:
    """Compute which share of the peak a run reached, counted as in plans.

    Args:
        phase: What was trained.
        machine: What it was trained on, with whole copies; its own `share_of_peak` is not used.
        hours: How long it took.
    """
    peak = machine.num_gpus * machine.peak_flops_per_second(phase.precision)
    flops = phase.training_flops_per_token() * phase.total_tokens
    waiting = plan_communication(phase, machine, 0.0).waiting_seconds
    steps = phase.total_tokens / phase.tokens_per_step
    return flops / ((hours * _SECONDS_PER_HOUR - steps * waiting) * peak)


def _warnings(phase: Phase, machine: Machine, memory: Memory) -> list[str]:
    found = []
    available = machine.chip.memory_gb
    if available is not None and memory.total > available * 1e9:
        found.append(
            f"{phase.name}: {memory.total / 1e9:.0f} GB a process do not fit the "
            f"{available:.0f} GB of {machine.chip.name}; take smaller micro-batches, recompute "
            "activations or shard the weights"
        )
    at_once = phase.micro_batch_tokens * machine.num_gpus
    if at_once > phase.tokens_per_step:
        found.append(
            f"{phase.name}: a step of {phase.tokens_per_step:,} tokens is less than a micro-batch "
            f"for each of {machine.num_gpus} processes ({at_once:,}): some would wait"
        )
    return found


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
        """The share of the peak that the run reached, counted as in plans."""
        return fitted_share(self.phase, self.machine, self.hours)


def published_runs(lengths: DocumentLengths | None = None) -> Iterator[PublishedRun]:
    """Return the paper's six phases.

    Args:
        lengths: The lengths of all documents, instead of those that each phase assumes.
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
    """Return the first phases of base and of large."""
    return tuple(run for run in published_runs() if run.phase.name == "pretraining")


def nearest_run(config: EncoderConfig) -> PublishedRun:
    """Return the first phase of the published size that is nearest in width.

    Wider models reach more of the peak: their products are larger, and what is not a product
    weighs less beside them.
    """
    return min(
        first_phases(), key=lambda run: abs(run.phase.config.hidden_size - config.hidden_size)
    )
