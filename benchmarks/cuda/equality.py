"""Section `correctness`: every back end against float64, outputs and gradients; no NaN anywhere."""

import warnings
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cuda.bench import Bench, Figures, Mix, Rows, TrainingStep, real_tokens
from modernbert.batch import PackedBatch
from modernbert.model.attention import attend
from modernbert.model.choices import AttentionChoice
from modernbert.model.layout import Layout

_HEADS, _SIZE, _WINDOW = 2, 64, 64
_MIXES = ((1, 2, 63, 64, 65, 128, 129, 300), (1_024, 1, 1, 1, 777), (8_192, 500, 1))
# Of the largest entry: rounding of the format, a few times over.
_WITHIN = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}


def correctness(bench: Bench) -> Rows:
    """The largest error of each, relative to the largest entry; `ok` where all are small enough."""
    rows = bench.rows()
    torch.backends.cuda.matmul.allow_tf32 = False
    for attention in bench.attentions:
        for dtype in _WITHIN:
            if attention in ("varlen", "flash3") and dtype is torch.float32:
                continue
            rows[f"{attention} {str(dtype).removeprefix('torch.')}"] = _attention(
                bench, attention, dtype
            )
    rows["filled-up batches"] = _filling(bench)
    rows["training step"] = _step(bench)
    return rows


def _attention(bench: Bench, attention: AttentionChoice, dtype: torch.dtype) -> Figures:
    worst = {"output": 0.0, "gradients": 0.0}
    for lengths in _MIXES[: 1 if bench.tiny else None]:
        for window in (None, _WINDOW):
            got = _run(bench, lengths, window, dtype, attention)
            expected = _dense(bench, lengths, window, dtype)
            errors = [_error(one, other) for one, other in zip(got, expected, strict=True)]
            worst["output"] = max(worst["output"], errors[0])
            worst["gradients"] = max(worst["gradients"], *errors[1:])
    passed = max(worst.values()) <= _WITHIN[dtype]
    return {**worst, "ok": "yes" if passed else "NO"}


def _tensors(bench: Bench, total: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, total, _HEADS, _SIZE, generator=generator).to(bench.device, dtype)


def _batch(bench: Bench, lengths: Sequence[int]) -> PackedBatch:
    return PackedBatch.from_sequences([[5] * length for length in lengths], device=bench.device)


def _run(
    bench: Bench,
    lengths: Sequence[int],
    window: int | None,
    dtype: torch.dtype,
    attention: AttentionChoice,
) -> tuple[Tensor, ...]:
    *inputs, direction = _tensors(bench, sum(lengths), dtype).unbind()
    inputs = [each.clone().requires_grad_() for each in inputs]
    layout = Layout(_batch(bench, lengths), _WINDOW, attention=attention)
    output = attend(*inputs, layout, window=window)
    return output, *torch.autograd.grad(output, inputs, direction)


def _dense(
    bench: Bench, lengths: Sequence[int], window: int | None, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """The same in float64, one sequence after another."""
    *inputs, direction = _tensors(bench, sum(lengths), dtype).double().unbind()
    inputs = [each.clone().requires_grad_() for each in inputs]
    pieces = []
    for query, key, value in zip(*(each.split(list(lengths)) for each in inputs), strict=True):
        rows = torch.arange(len(query), device=bench.device)
        scores = torch.einsum("qhd,khd->hqk", query, key) * _SIZE**-0.5
        if window is not None:
            scores = scores.masked_fill((rows[:, None] - rows).abs() > window, -torch.inf)
        pieces.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), value))
    output = torch.cat(pieces)
    return output, *torch.autograd.grad(output, inputs, direction)


def _error(got: Tensor, expected: Tensor) -> float:
    """NaN counts as infinite."""
    got, expected = got.detach().double(), expected.detach()
    error = float((got - expected).abs().max() / expected.abs().max())
    return error if error == error else float("inf")


@torch.no_grad()
def _filling(bench: Bench) -> Figures:
    """Compiled and filled up, against the plain forward of the same texts."""
    size = bench.sizes[0]
    plain, compiled = bench.model(size, compiled=False), bench.model(size, compiled=True)
    masked = bench.batch(size, Mix(256, 100, 40))
    total = real_tokens(masked)
    lengths = [int(each) for each in masked.batch.lengths if each]
    texts = masked.batch.token_ids[:total].cpu().split(_up_to(lengths, total))
    with torch.autocast(bench.device.type, torch.bfloat16):
        got = compiled.encoder(masked.batch)[:total]
        expected = plain.encoder(PackedBatch.from_sequences(texts, device=bench.device))
    error = _error(got, expected.double())
    return {"output": error, "ok": "yes" if error <= _WITHIN[torch.bfloat16] else "NO"}


def _up_to(lengths: Sequence[int], total: int) -> list[int]:
    """The first lengths, which together are so many tokens."""
    ends = list(accumulate(lengths))
    return list(lengths[: ends.index(total) + 1])


def _step(bench: Bench) -> Figures:
    """A few training steps: the loss falls, and the host waits for nothing."""
    size = bench.sizes[0]
    step = TrainingStep(bench, bench.model(size))
    batch = bench.batch(size, Mix(256, 100, 40))
    first = float(step(batch))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if bench.is_cuda:
            torch.cuda.set_sync_debug_mode("warn")
        for _ in range(5):
            loss = step(batch)
        if bench.is_cuda:
            torch.cuda.set_sync_debug_mode("default")
    waits = [each for each in caught if "synchronizing CUDA operation" in str(each.message)]
    figures: Figures = {"first": first, "after 6": float(loss), "waits": len(waits)}
    if waits:
        figures["the first at"] = f"{Path(waits[0].filename).name}:{waits[0].lineno}"
    return {**figures, "ok": "yes" if float(loss) < first and not waits else "NO"}
