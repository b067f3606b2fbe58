"""A plan as lines for a person, and as JSON."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from modernbert.cli.terminal import short_count

if TYPE_CHECKING:
    from modernbert.planning import DataPlan, PhasePlan

_BYTE_UNITS = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"))


class PlanLine(NamedTuple):
    """One quantity: its name, its value in each phase, and where it comes from."""

    name: str
    value: "Callable[[PhasePlan], str]"
    source: str


def table(plans: "Sequence[PhasePlan]", data: "DataPlan", sources: dict[str, Any]) -> Iterator[str]:
    """Yield the plan, a column for each phase; what all phases take together, and their data."""
    yield machine_line(plans[0], sources)
    yield ""
    names = [plan.phase.name for plan in plans]
    rows = list(_rows(plans[0], sources))
    cells = [["", *names, "where it comes from"]]
    cells += [[row.name, *map(row.value, plans), row.source] for row in rows]
    yield from _aligned(cells)
    for plan in plans:
        yield ""
        yield f"documents of {plan.phase.name}: {plan.phase.lengths.source}"
    if len(plans) > 1:
        yield ""
        yield from _aligned(list(_totals(plans)))
    yield ""
    yield from _aligned(list(_data_cells(data, sources)))


def machine_line(plan: "PhasePlan", sources: dict[str, Any]) -> str:
    """Return which processes these are.

    The peak is that of the format in which the first phase computes.
    """
    machine, chip = plan.machine, plan.machine.chip
    peak = machine.peak_flops_per_second(plan.phase.precision) / 1e12
    form = "bfloat16" if machine.in_bfloat16(plan.phase.precision) else "float32"
    memory = ""
    if chip.memory_gb is not None and chip.bandwidth_gb_per_second is not None:
        memory = f", {chip.memory_gb:g} GB at {chip.bandwidth_gb_per_second / 1e3:.3g} TB/s"
    how = "fully sharded" if machine.sharded else "data parallel"
    return (
        f"{machine.num_gpus} x {chip.name}{memory}, {how}; "
        f"{peak:.4g} TFLOP/s each in {form} ({sources['peak']})"
    )


def byte_count(number: float) -> str:
    """Write bytes in three digits, in powers of 1,000.

    >>> byte_count(598_620_928), byte_count(3_999_000_000_000), byte_count(12)
    ('599 MB', '4.00 TB', '12 bytes')
    """
    for size, unit in _BYTE_UNITS:
        if number >= size:
            scaled = number / size
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {unit}"
    return f"{number:,.0f} bytes"


def _rows(first: "PhasePlan", sources: dict[str, Any]) -> Iterator[PlanLine]:
    again = " and the encoder's forward once more" if first.machine.recompute else ""
    yield PlanLine("tokens", lambda p: short_count(p.phase.total_tokens), "the recipe")
    yield PlanLine("longest sequence", lambda p: f"{p.phase.max_seqlen:,}", "the recipe")
    yield PlanLine(
        "tokens a step", lambda p: f"{p.phase.tokens_per_step:,}", "the recipe, bins full"
    )
    yield PlanLine("steps", lambda p: f"{p.phase.num_steps:,}", "tokens / tokens a step")
    yield PlanLine(
        "vocabulary size", lambda p: f"{p.phase.config.vocab_size:,}", sources["vocabulary_size"]
    )
    yield PlanLine(
        "parameters", lambda p: f"{p.phase.config.num_parameters(head=True):,}", "the model's sizes"
    )
    yield PlanLine(
        "FLOPs a token",
        lambda p: short_count(p.flops_per_token),
        f"3 x the forward's products at the documents' lengths{again}",
    )
    yield PlanLine("FLOPs", lambda p: f"{p.flops:.3g}", "x tokens")
    yield PlanLine(
        "share of peak", lambda p: f"{p.machine.share_of_peak:.1%}", sources["share_of_peak"]
    )
    if first.machine.num_gpus > 1:
        yield PlanLine(
            "waiting in a step",
            lambda p: f"{1e3 * p.communication.waiting_seconds:.1f} ms",
            "for the other processes: bytes / three quarters of the link",
        )
    yield PlanLine("tokens/s", lambda p: short_count(p.tokens_per_second), "peak x share / FLOPs")
    yield PlanLine(
        "tokens/s a GPU", lambda p: short_count(p.tokens_per_second / p.machine.num_gpus), ""
    )
    yield PlanLine("hours", lambda p: f"{p.hours:,.1f}", "without evaluations and checkpoints")
    yield PlanLine("GPU hours", lambda p: f"{p.gpu_hours:,.1f}", "")
    if first.cost is not None:
        price = f"{first.machine.price_per_gpu_hour:g} a GPU hour, given"
        yield PlanLine("cost", lambda p: f"{p.cost:,.0f}", price)
    yield from _memory_rows(first)
    yield PlanLine(
        "a checkpoint", lambda p: byte_count(p.checkpoint_bytes), "weights and optimizer"
    )
    yield PlanLine(
        "the run's folder",
        lambda p: byte_count(p.disk_bytes),
        "checkpoints that stay, one more, and the model",
    )


_MEMORY = {
    "weights": "float32",
    "gradients": "float32",
    "optimizer": "two averages, float32; one of Muon's matrices",
    "weight_copies": "bfloat16; with --sharded also what is gathered",
    "activations": "what the backward of one micro-batch keeps",
    "vocabulary": "logits in memory at a time, and the decoder's gradient",
    "working": "inside one layer's backward",
    "update": "of the optimizer; the four above are gone then",
    "program": "assumed",
    "gaps": "between buffers in a CPU's heap, measured with glibc",
}


def _memory_rows(first: "PhasePlan") -> Iterator[PlanLine]:
    yield PlanLine(
        "memory a process", lambda p: byte_count(p.memory.total), f"of {_available(first)}"
    )
    for name, source in _MEMORY.items():
        yield PlanLine(f"  {name.replace('_', ' ')}", _memory_value(name), source)


def _memory_value(name: str) -> "Callable[[PhasePlan], str]":
    return lambda plan: byte_count(plan.memory.as_mapping()[name])


def _available(plan: "PhasePlan") -> str:
    available = plan.machine.chip.memory_gb
    there = "what is there" if available is None else f"{available:g} GB"
    return f"{there}; the larger of backward and update"


def _totals(plans: "Sequence[PhasePlan]") -> Iterator[list[str]]:
    total = total_of(plans)
    yield ["all phases", "", ""]
    yield ["  tokens", short_count(total["tokens"]), ""]
    yield ["  hours", f"{total['hours']:,.1f}", ""]
    yield ["  GPU hours", f"{total['gpu_hours']:,.1f}", ""]
    if total["cost"] is not None:
        yield ["  cost", f"{total['cost']:,.0f}", ""]


def total_of(plans: "Sequence[PhasePlan]") -> dict[str, Any]:
    """Add up the phases."""
    costs = [plan.cost for plan in plans if plan.cost is not None]
    return {
        "tokens": sum(plan.phase.total_tokens for plan in plans),
        "flops": sum(plan.flops for plan in plans),
        "hours": sum(plan.hours for plan in plans),
        "gpu_hours": sum(plan.gpu_hours for plan in plans),
        "cost": sum(costs) if costs else None,
    }


def _data_cells(data: "DataPlan", sources: dict[str, Any]) -> Iterator[list[str]]:
    from modernbert.data.settings import DEFAULT_SHARD_TOKENS
    from modernbert.planning.lengths import TEXT_BYTES_PER_TOKEN

    cores = sources["cores"]
    yield ["data, seen once", "", ""]
    yield ["  tokens", short_count(data.tokens), "without [CLS] and [SEP]"]
    yield ["  documents", short_count(data.documents), "by their mean length"]
    yield ["  text", byte_count(data.text_bytes), f"{TEXT_BYTES_PER_TOKEN} bytes a token, English"]
    yield ["  shards", f"{data.shards:,}", f"{DEFAULT_SHARD_TOKENS:,} tokens each"]
    yield ["  on disk", byte_count(data.shard_bytes), f"{data.dtype}, and 8 bytes a document"]
    yield ["  besides, for a while", byte_count(data.scratch_bytes), "while `prepare` shuffles"]
    yield ["  core hours to tokenize", f"{data.core_hours:,.1f}", sources["tokenizing"]]
    yield [f"  hours on {cores} cores", f"{data.hours:,.1f}", ""]


def _aligned(cells: list[list[str]]) -> Iterator[str]:
    """Rows of equal length: names and sources to the left, values to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for name, *values, source in cells:
        shown = [value.rjust(width) for value, width in zip(values, widths[1:-1], strict=True)]
        yield "  ".join([name.ljust(widths[0]), *shown, source]).rstrip()


def as_mapping(
    plans: "Sequence[PhasePlan]", data: "DataPlan", sources: dict[str, Any]
) -> dict[str, Any]:
    """Return the plan as JSON values."""
    machine = plans[0].machine
    return {
        "machine": {**asdict(machine), "chip": asdict(machine.chip)},
        "phases": [_phase_mapping(plan) for plan in plans],
        "total": total_of(plans),
        "data": asdict(data),
        "sources": sources,
    }


def _phase_mapping(plan: "PhasePlan") -> dict[str, Any]:
    phase = plan.phase
    return {
        "name": phase.name,
        "tokens": phase.total_tokens,
        "max_seqlen": phase.max_seqlen,
        "tokens_per_step": phase.tokens_per_step,
        "steps": phase.num_steps,
        "parameters": phase.config.num_parameters(head=True),
        "document_lengths": phase.lengths.source,
        "flops_per_token": plan.flops_per_token,
        "flops": plan.flops,
        "tokens_per_second": plan.tokens_per_second,
        "communication": asdict(plan.communication),
        "hours": plan.hours,
        "gpu_hours": plan.gpu_hours,
        "cost": plan.cost,
        "memory_bytes": plan.memory.as_mapping(),
        "model_bytes": plan.model_bytes,
        "checkpoint_bytes": plan.checkpoint_bytes,
        "disk_bytes": plan.disk_bytes,
        "warnings": list(plan.warnings),
    }
