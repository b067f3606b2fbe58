"""Sections `ceilings`, `training`, `fused`, `memory` and `flex`."""

from collections.abc import Callable
from functools import partial

import torch

from benchmarks.cuda.bench import (
    MASKED_SHARE,
    Bench,
    Figures,
    Mix,
    Rows,
    TrainingStep,
)
from modernbert.model.attention import attend
from modernbert.model.config import flops_per_token
from modernbert.model.layout import Layout
from modernbert.planning.memory import plan_memory
from modernbert.planning.phase import Machine, Phase, find_chip
from modernbert.tasks.pretraining.vocabulary_loss import MAX_LOGITS_BYTES

_COPY_BYTES = 1 << 30


def ceilings(bench: Bench) -> Rows:
    """What products, copies and transfers reach by themselves."""
    rows = bench.rows()
    for size in bench.sizes:
        config, tokens = bench.config(size), bench.tokens(size)
        width, inner = config.hidden_size, config.intermediate_size
        for depth, columns in ((width, 3 * width), (width, 2 * inner), (inner, width)):
            rows[f"{size} {tokens} x {depth} x {columns}"] = _product(bench, tokens, depth, columns)
    side = 256 if bench.tiny else 8_192
    rows[f"{side} x {side} x {side}"] = _product(bench, side, side, side)
    count = (1 << 20 if bench.tiny else _COPY_BYTES) // 2
    source = torch.zeros(count, dtype=torch.bfloat16, device=bench.device)
    target = torch.empty_like(source)
    seconds = bench.time(lambda: target.copy_(source))
    rows["copy"] = {"GB/s read and written": 4 * count / seconds / 1e9}
    if bench.is_cuda:
        host = torch.zeros(count, dtype=torch.bfloat16).pin_memory()
        seconds = bench.time(lambda: target.copy_(host, non_blocking=True))
        rows["from the host"] = {"GB/s": 2 * count / seconds / 1e9}
    return rows


def _product(bench: Bench, rows: int, depth: int, columns: int) -> Figures:
    one, other = (
        torch.randn(shape, dtype=torch.bfloat16, device=bench.device)
        for shape in ((rows, depth), (depth, columns))
    )
    seconds = bench.time(lambda: one @ other)
    return {"bfloat16 TFLOP/s": 2 * rows * depth * columns / seconds / 1e12}


def best_product(bench: Bench, size: str) -> float:
    """FLOP/s of the fastest of a size's own products, measured now: its ceiling."""
    config, tokens = bench.config(size), bench.tokens(size)
    width, inner = config.hidden_size, config.intermediate_size
    shapes = ((width, 3 * width), (width, 2 * inner), (inner, width))
    speeds = (_product(bench, tokens, *shape)["bfloat16 TFLOP/s"] for shape in shapes)
    return 1e12 * max(float(speed) for speed in speeds)


def training(bench: Bench) -> Rows:
    """Whole steps, update included: tokens a second and share of the ceiling."""
    rows = bench.rows()
    for size in bench.sizes:
        step, ceiling = TrainingStep(bench, bench.model(size)), best_product(bench, size)
        for name, mix in bench.mixes("1024 fixed", "1024 ragged", "8192 ragged").items():
            call = partial(step, bench.batch(size, mix))
            rows[f"{size} {name}"] = _speed(bench, call, size, mix, ceiling)
        del step
    return rows


_SWITCHES = ("plain", "fuses", "narrow_stream", "float8")
_COMPARED_STEPS = 50


def fused(bench: Bench) -> Rows:
    """A training step at 1,024 ragged with each of what is off by default, and its loss.

    The loss is that of one batch, which the model learns by heart in so many steps.
    """
    rows = bench.rows()
    for size in bench.sizes:
        ceiling = best_product(bench, size)
        for name, mix in bench.mixes("1024 ragged").items():
            for switch in _SWITCHES:
                model, batch = bench.model(size), bench.batch(size, mix)
                if switch != "plain":
                    setattr(model.encoder, switch, True)
                step = TrainingStep(bench, model)
                losses = [step(batch) for _ in range(3 if bench.tiny else _COMPARED_STEPS)]
                speed = _speed(bench, partial(step, batch), size, mix, ceiling)
                rows[f"{size} {name}, {switch}"] = {
                    **speed,
                    f"loss after {len(losses)} steps": float(losses[-1]),
                }
    return rows


def _speed(
    bench: Bench, call: Callable[[], object], size: str, mix: Mix, ceiling: float
) -> Figures:
    """Of a training step: three times the forward's operations."""
    seconds, config = bench.time(call), bench.config(size)
    lengths = mix.lengths(bench.tokens(size))
    operations = 3 * sum(
        length * flops_per_token(config, length, masked_share=MASKED_SHARE) for length in lengths
    )
    return {
        "tokens/s": sum(lengths) / seconds,
        "TFLOP/s": operations / seconds / 1e12,
        "share of the ceiling": operations / seconds / ceiling,
        "ms": 1e3 * seconds,
    }


def memory(bench: Bench) -> Rows:
    """The most that a training step holds, beside what `plan` says, and the largest batch."""
    rows = bench.rows()
    for size in bench.sizes:
        (mix,) = bench.mixes("1024 ragged").values()
        step, total = TrainingStep(bench, bench.model(size)), bench.tokens(size)
        while (held := _held(bench, partial(step, bench.batch(size, mix, total)))) is not None:
            planned = _planned(bench, size, total)
            rows[f"{size} {total} tokens"] = {
                "GiB": held / 2**30,
                "GiB planned": planned / 2**30,
                "of planned": held / planned,
            }
            total *= 2
            if not bench.is_cuda:
                break
        del step
    return rows


def _held(bench: Bench, call: Callable[[], object]) -> int | None:
    """Bytes at most during two calls; None where the memory does not suffice."""
    if not bench.is_cuda:
        call()
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(bench.device)
    try:
        call()
        call()
    except torch.OutOfMemoryError:
        return None
    return torch.cuda.max_memory_allocated(bench.device)


def _planned(bench: Bench, size: str, tokens: int) -> int:
    phase = Phase(
        name=size,
        config=bench.config(size),
        total_tokens=10**9,
        tokens_per_step=tokens,
        micro_batch_tokens=tokens,
        max_logits_bytes=MAX_LOGITS_BYTES,
        max_seqlen=1_024,
        mask_rate=MASKED_SHARE,
    )
    chip = find_chip("H200" if bench.is_cuda else "CPU")
    planned = plan_memory(phase, Machine(chip=chip, share_of_peak=0.5))
    return planned.total - planned.program  # which torch does not allocate


def flex(bench: Bench) -> Rows:
    """One layer's attention by every back end, forward and backward, in milliseconds."""
    rows = bench.rows()
    size = bench.sizes[0]
    config, total = bench.config(size), bench.tokens(size)
    for attention in bench.attentions:
        for name, mix in bench.mixes("1024 ragged", "8192 fixed", "8192 ragged").items():
            batch = bench.batch(size, mix).batch
            shape = (3, total, config.num_heads, config.head_size)
            inputs = torch.randn(shape, dtype=torch.bfloat16, device=bench.device).requires_grad_()
            layout = Layout(batch, config.window, attention=attention)
            rows[f"{attention} {name}"] = {
                label: 1e3 * bench.time(partial(_both_ways, inputs, layout, window))
                for label, window in (("global ms", None), ("local ms", config.window))
            }
    return rows


def _both_ways(inputs: torch.Tensor, layout: Layout, window: int | None) -> None:
    output = attend(*inputs.unbind(), layout, window=window)
    torch.autograd.grad(output, inputs, output.detach())
