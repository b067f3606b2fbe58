"""Section `parts`: where the time of a training step goes, by the profiler's account of kernels."""

from collections.abc import Callable, Mapping

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.cuda.bench import Bench, Figures, Rows, TrainingStep

_STEPS = 3
# Beginnings or pieces of kernels' names, first match first; on a CPU those of operators.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "attention": ("flash", "fmha", "flex", "attend", "attention"),
    "products": ("gemm", "nvjet", "cutlass", "xmma", "sm90", "aten::mm", "aten::addmm", "cublas"),
    "optimizer": ("multi_tensor", "foreach", "average_kernel", "change_kernel"),
    "copies": ("memcpy", "memset", "aten::copy_", "aten::fill_"),
}
_REST = "norms, rotation, GeGLU, loss"


def parts(bench: Bench) -> Rows:
    """Milliseconds of a step by part, for each size at 1,024 ragged and 8,192 ragged."""
    rows = bench.rows()
    for size in bench.sizes:
        step = TrainingStep(bench, bench.model(size))
        for name, mix in bench.mixes("1024 ragged", "8192 ragged").items():
            batch = bench.batch(size, mix)
            for _ in range(3):
                step(batch)
            bench.synchronize()
            rows[f"{size} {name}"] = _divide(bench, lambda batch=batch, step=step: step(batch))
        del step
    return rows


def _divide(bench: Bench, call: Callable[[], object]) -> Figures:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.is_cuda else [])]
    with profile(activities=activities) as profiled:
        for _ in range(_STEPS):
            call()
        bench.synchronize()
    figures: Figures = dict.fromkeys((*_NAMES, _REST), 0.0)
    for event in profiled.key_averages():
        if (event.device_type != torch.autograd.DeviceType.CPU) != bench.is_cuda:
            continue
        micros = event.self_device_time_total if bench.is_cuda else event.self_cpu_time_total
        figures[part_of(event.key)] += micros / 1e3 / _STEPS
    figures["ms"] = sum(float(each) for each in figures.values())
    figures["ms by the clock"] = 1e3 * bench.time(call)
    return figures


def part_of(name: str) -> str:
    """The part that a kernel belongs to.

    >>> part_of("nvjet_tst_128x256"), part_of("triton_red_fused_native_layer_norm")
    ('products', 'norms, rotation, GeGLU, loss')
    """
    lowered = name.lower()
    for part, pieces in _NAMES.items():
        if any(piece in lowered for piece in pieces):
            return part
    return _REST
