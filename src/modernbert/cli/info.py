"""`modernbert info`: describes a model, data, a run, a recipe or this machine."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from modernbert.cli.options import AsJson, echo_json
from modernbert.cli.terminal import lines

_ROWS, _DEPTH, _COLUMNS = 512, 768, 2304  # 512 tokens through the first matrix of base
_SECONDS = 0.3


def describe_this_machine() -> dict[str, Any]:
    """Describe what this machine computes with, and the speeds that it reaches now."""
    import torch

    from modernbert.devices import best_device
    from modernbert.model.attention_choice import describe_attention
    from modernbert.model.config import EncoderConfig
    from modernbert.model.native import loading
    from modernbert.model.precision import choose_precision
    from modernbert.training.log import describe_machine

    cpu = torch.device("cpu")
    machine, chosen = loading.this_machine(), loading.choice()
    known = frozenset().union(*(variant.features for variant in machine.variants()))
    precision, _ = choose_precision(EncoderConfig.preset("base"), "auto", cpu)
    loading.library()
    return {
        **describe_machine(cpu),
        "cpu_features": sorted(known & machine.features) or "none that the kernels use",
        "kernels": loading.describe(chosen).removeprefix("C kernels: "),
        "kernels_present": list(machine.objects) or "none",
        "kernels_usable": [variant.name for variant in machine.usable()] or "none",
        "precision_of_auto": precision,
        "attention_of_auto": describe_attention(best_device()),
        "gflops_of_a_core": _speeds(),
    }


def _speeds() -> list[dict[str, Any]]:
    """Of one product in each precision, by the package's kernels and by torch's, on one thread."""
    import torch

    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for precision in ("float32", "bfloat16", "int8"):
        products = {"ours": _our_product(precision), "torch": _torch_product(precision)}
        speeds = {name: _speed(product) for name, product in products.items()}
        found.append({"precision": precision, **speeds})
    torch.set_num_threads(threads)
    return found


def _speed(product: Callable[[], object] | None) -> int | str:
    """In 10^9 operations a second; the best of a third of a second of this thread's CPU time."""
    if product is None:
        return "none"
    best, began = float("inf"), time.thread_time()
    while time.thread_time() - began < _SECONDS:
        started = time.thread_time()
        product()
        best = min(best, time.thread_time() - started)
    return round(2 * _ROWS * _DEPTH * _COLUMNS / best / 1e9)


def _our_product(precision: Any) -> Callable[[], object] | None:
    import torch

    from modernbert.model.config import EncoderConfig
    from modernbert.model.native.engine import PackedWeights, supports

    if not supports(EncoderConfig.preset("base"), precision):
        return None
    weights = PackedWeights.pack(torch.randn(_COLUMNS, _DEPTH), precision)
    rows = torch.randn(_ROWS, _DEPTH)
    return lambda: weights.multiply(rows)


def _torch_product(precision: Any) -> Callable[[], object] | None:
    import torch

    if precision == "int8":  # torch's own is for tests: on some CPUs it takes seconds
        return None
    dtype = getattr(torch, precision)
    rows = torch.randn(_ROWS, _DEPTH, dtype=dtype)
    weight = torch.randn(_COLUMNS, _DEPTH, dtype=dtype)
    return lambda: torch.nn.functional.linear(rows, weight)


def info(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            help="A folder of a model, a tokenizer, shards, an index or a run; or a recipe.",
            show_default=False,
        ),
    ] = None,
    machine: Annotated[
        bool,
        typer.Option(
            "--machine",
            help="Describe the CPU, the kernels in use and their measured speeds instead.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Describe a model, tokenizer, data, index, run, recipe or machine."""
    if (path is None) is not machine:
        raise typer.BadParameter("give either a PATH or --machine")
    description = _describe(path)
    if as_json:
        echo_json(description)
    else:
        typer.echo("\n".join(lines(description)))


def _describe(path: Path | None) -> dict[str, Any]:
    from modernbert.cli.descriptions import describe

    return describe_this_machine() if path is None else describe(path)
