"""How fast matrix products go here, by themselves: what the rest is measured against."""

import ctypes
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.cpu.models import CACHE
from modernbert.model.native import build, loading
from modernbert.model.native.engine import PackedWeights, Precision

_ROWS = 2_048
_MARK = "products: "
_TILES = 96  # as the encoder takes them, so that a block of rows stays in the cache
_KINDS: dict[Precision, int] = {"float32": 0, "bfloat16": 1, "int8": 2}


def shapes(width: int, inner: int) -> list[tuple[int, int]]:
    """(depth, columns) of a layer's four products."""
    return [(width, 3 * width), (width, width), (width, 2 * inner), (inner, width)]


def turns(width: int, inner: int) -> dict[str, Callable[[], object]]:
    """A layer's four products of 2,048 rows, of torch and of the C kernels, by precision.

    To be timed in turn with what is compared to them: a CPU's speed changes with its load.
    """
    sizes = shapes(width, inner)
    found: dict[str, Callable[[], object]] = {}
    makers: tuple[tuple[str, Callable[[], Callable[[], object]]], ...] = (
        ("torch float32", lambda: _torch_products(sizes, torch.float32)),
        ("torch bfloat16", lambda: _torch_products(sizes, torch.bfloat16)),
        ("torch int8", lambda: _torch_int8_products(sizes)),
        ("ours float32", lambda: _own_products(sizes, "float32")),
        ("ours bfloat16", lambda: _own_products(sizes, "bfloat16")),
        ("ours int8", lambda: _own_products(sizes, "int8")),
    )
    for name, make in makers:
        try:
            call = make()
            call()
        except (RuntimeError, AttributeError):  # an operator or a flag that is not there
            continue
        found[f"{_MARK}{name}"] = call
    return found


def gflops(seconds: Mapping[str, Sequence[float]], width: int, inner: int) -> dict[str, float]:
    """GFLOP/s of each of `turns`; whatever else was timed with them is left out."""
    operations = sum(2 * _ROWS * depth * columns for depth, columns in shapes(width, inner))
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


def _torch_int8_products(sizes: Sequence[tuple[int, int]]) -> Callable[[], object]:
    """Plain products of int8 into int32, through oneDNN."""

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randint(-127, 128, shape, dtype=torch.int8)

    pairs = [(drawn(_ROWS, depth), drawn(depth, columns)) for depth, columns in sizes]

    def call() -> None:
        for rows, weight in pairs:
            torch._int_mm(rows, weight)

    return call


def _own_products(sizes: Sequence[tuple[int, int]], precision: Precision) -> Callable[[], object]:
    kernels = _library()
    if precision == "bfloat16" and not loading.has_bfloat16():
        raise RuntimeError("no bfloat16 here")
    if precision == "int8" and not loading.has_int8():
        raise RuntimeError("no int8 here")
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.uint8}[precision]
    calls = []
    for depth, columns in sizes:
        weights = PackedWeights.pack(torch.randn(columns, depth), precision)
        rows = torch.randint(0, 256, (_ROWS, depth)).to(dtype)
        scales = torch.ones(_ROWS)
        out = torch.empty(_ROWS, columns)
        calls.append((weights, weights.describe(), rows, scales, out))

    def call() -> None:
        for _, described, rows, scales, out in calls:
            kernels.benchmark_product(
                ctypes.c_int(_KINDS[precision]),
                ctypes.c_void_p(rows.data_ptr()),
                ctypes.c_void_p(scales.data_ptr()),
                ctypes.byref(described),
                ctypes.c_long(len(rows)),
                ctypes.c_long(_TILES),
                ctypes.c_void_p(out.data_ptr()),
                ctypes.c_int(torch.get_num_threads()),
            )

    return call


def _library() -> Any:
    """The package's kernels with an entry to the products alone, compiled like the package's."""
    variant = loading.choice().variant
    if loading.library() is None or variant is None:
        raise RuntimeError("the C kernels are not available here")
    folder = Path(build.__file__).parent
    target = CACHE / "products.so"
    CACHE.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_suffix(".c")
    flags = ["-O3", "-fopenmp", "-fPIC", "-shared", *variant.flags, f"-I{folder}"]
    command = ["cc", *flags, str(source), "-o", str(target), "-lm"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return ctypes.CDLL(str(target))
