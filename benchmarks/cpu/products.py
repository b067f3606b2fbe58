"""How fast matrix products go here, by themselves: what the rest is measured against."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch

from modernbert.model.config import EncoderConfig
from modernbert.model.native.engine import PackedWeights, Precision, supports
from modernbert.model.native.loading import has_bfloat16

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
_ROWS = 2_048
_MARK = "products: "


def shapes(width: int, inner: int) -> list[tuple[int, int]]:
    """(depth, columns) of a layer's four products."""
    return [(width, 3 * width), (width, width), (width, 2 * inner), (inner, width)]


def turns(config: EncoderConfig) -> dict[str, Callable[[], object]]:
    """A layer's four products of 2,048 rows, of torch and of the C kernels, by precision.

    To be timed in turn with what is compared to them: a CPU's speed changes with its load.
    """
    sizes = shapes(config.hidden_size, config.intermediate_size)
    found = {"torch float32": _torch_products(sizes, torch.float32)}
    if has_bfloat16():  # elsewhere torch takes seconds for them
        found["torch bfloat16"] = _torch_products(sizes, torch.bfloat16)
    for precision in PRECISIONS:
        if supports(config, precision):
            found[f"ours {precision}"] = _own_products(sizes, precision)
    return {f"{_MARK}{name}": call for name, call in found.items()}


def gflops(seconds: Mapping[str, Sequence[float]], config: EncoderConfig) -> dict[str, float]:
    """GFLOP/s of each of `turns`; whatever else was timed with them is left out."""
    sizes = shapes(config.hidden_size, config.intermediate_size)
    operations = sum(2 * _ROWS * depth * columns for depth, columns in sizes)
    return {
        name.removeprefix(_MARK): operations / median(times) / 1e9
        for name, times in seconds.items()
        if name.startswith(_MARK)
    }


def without(seconds: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """What was timed beside the products."""
    return {name: times for name, times in seconds.items() if not name.startswith(_MARK)}


def highest(measured: dict[str, float], precision: str) -> float:
    """The ceiling of a precision: the faster of torch's and ours."""
    return max(speed for name, speed in measured.items() if name.endswith(precision))


def _torch_products(sizes: Sequence[tuple[int, int]], dtype: torch.dtype) -> Callable[[], object]:
    pairs = [
        (torch.randn(_ROWS, depth, dtype=dtype), torch.randn(columns, depth, dtype=dtype))
        for depth, columns in sizes
    ]

    @torch.inference_mode()
    def call() -> None:
        for rows, weight in pairs:
            torch.nn.functional.linear(rows, weight)

    return call


def _own_products(sizes: Sequence[tuple[int, int]], precision: Precision) -> Callable[[], object]:
    """Products by the package's kernels, which are given float32 rows and round them themselves."""
    pairs = [
        (torch.randn(_ROWS, depth), PackedWeights.pack(torch.randn(columns, depth), precision))
        for depth, columns in sizes
    ]

    def call() -> None:
        for rows, weights in pairs:
            weights.multiply(rows)

    return call
