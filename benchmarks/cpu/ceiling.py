"""Claim: most of the time goes to matrix products at the speed of the chip.

    python -m benchmarks.cpu.ceiling

Of each precision and length: the arithmetic of a forward a second over that of products alone,
measured in the same run, and how the time divides among the parts of the model. The parts are
timed by themselves: products and attention by the package's kernels, of which attention also
rotates; what is left of the whole are norms, conversions, residuals and waiting. Without C kernels
for this CPU there are the shares of torch's products alone.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks import command, results
from benchmarks.cpu import products
from benchmarks.models import Model
from benchmarks.timing import interleave
from benchmarks.workloads import token_ids
from modernbert.batch import PackedBatch
from modernbert.model.config import EncoderConfig, LayerKind, flops_per_token
from modernbert.model.encoder import Encoder
from modernbert.model.layout import Layout
from modernbert.model.native import functions as native
from modernbert.model.native.engine import Precision, supports
from modernbert.model.native.loading import has_bfloat16
from modernbert.model.rope import rotary_table

CASES: Mapping[str, tuple[int, ...]] = {"512": (512,) * 8, "8192": (8_192,)}
KINDS: tuple[LayerKind, ...] = ("global", "local")
# What attention computes in: int8 is for products, and beside it stands what the kernels have.
_FORMATS: Mapping[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "int8": torch.bfloat16 if has_bfloat16() else torch.float32,
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = command.parser(
        __doc__, rounds=3, seconds=120, cases=(",".join(CASES), "lengths, by commas")
    )
    command.add_model(made, layers=11)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write."""
    options = parser().parse_args(arguments)
    _tell(command.measured("ceiling", measure, options, results.on_this_cpu("ceiling")))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every case of a model."""
    model = command.model_of(options)
    cases = {case: _measure(model, CASES[case], options) for case in options.cases.split(",")}
    return {"model": model.description, "cases": cases}


def _measure(model: Model, lengths: Sequence[int], options: argparse.Namespace) -> dict[str, Any]:
    """Products by themselves, and every precision that there is here."""
    batch = PackedBatch.from_sequences(token_ids(lengths))
    turns = products.turns(model.config)
    native = [name for name in products.PRECISIONS if supports(model.config, name)]
    available: list[Precision] = native or ["float32"]
    for precision in available:
        encoder = Encoder.from_pretrained(model.folder, precision=precision)
        turns[f"whole {precision}"] = partial(_encode, encoder, batch)
    for kind in KINDS:
        for dtype in dict.fromkeys(_FORMATS[precision] for precision in native):
            name = f"{kind} {str(dtype).removeprefix('torch.')}"
            turns[name] = _attention(model.config, kind, dtype, batch)
    for call in turns.values():
        call()
    seconds = interleave(
        turns,
        rounds=options.rounds,
        budget_seconds=options.seconds / len(CASES),
        min_turn_seconds=0.2,
        clock=command.clock(options),
    )
    speeds = products.gflops(seconds, model.config)
    times = {name: median(each) for name, each in seconds.items()}
    return {
        "product_gflops": speeds,
        "precisions": {
            name: _divide(name, times, speeds, model.config, lengths) for name in available
        },
    }


def _encode(encoder: Encoder, batch: PackedBatch) -> None:
    with torch.inference_mode():
        encoder(batch)


def _attention(
    config: EncoderConfig, kind: LayerKind, dtype: torch.dtype, batch: PackedBatch
) -> Callable[[], object]:
    """One layer's rotation and attention."""
    layout = Layout(batch, config.window)
    table = rotary_table(batch.position_ids, config.head_size, config.theta(kind))
    qkv = torch.randn(batch.total_tokens, 3 * config.hidden_size, dtype=dtype)
    window = config.window if kind == "local" else None

    def call() -> None:
        with torch.inference_mode():
            native.attend(qkv, table, layout, num_heads=config.num_heads, window=window)

    return call


def _divide(
    precision: Precision,
    times: Mapping[str, float],
    speeds: dict[str, float],
    config: EncoderConfig,
    lengths: Sequence[int],
) -> dict[str, Any]:
    """The share of the ceiling, and seconds and GFLOP/s of each part."""
    total = sum(lengths)
    weights = total * config.num_layers * _weights_of_a_layer(config) * 2
    whole = sum(length * flops_per_token(config, length) for length in lengths)
    narrow = str(_FORMATS[precision]).removeprefix("torch.")
    num_global = config.layer_kinds.count("global")
    each = {"global": num_global, "local": config.num_layers - num_global}
    ceiling = products.highest(speeds, precision)
    parts = {"products": weights / speeds.get(f"ours {precision}", ceiling) / 1e9}
    attention = {kind: times.get(f"{kind} {narrow}", 0.0) for kind in each}
    parts |= {f"{kind} attention": attention[kind] * each[kind] for kind in each}
    seconds = times[f"whole {precision}"]
    parts["rest"] = seconds - sum(parts.values())
    return {
        "seconds": seconds,
        "tokens_per_second": total / seconds,
        "gflops": whole / seconds / 1e9,
        "share_of_ceiling": whole / seconds / 1e9 / ceiling,
        "share_of_operations_in_attention": 1 - weights / whole,
        "parts": {
            name: {"seconds": part, "share_of_time": part / seconds} for name, part in parts.items()
        },
        "global_attention_gflops": _global_operations(config, lengths) / attention["global"] / 1e9
        if attention["global"]
        else None,
    }


def _weights_of_a_layer(config: EncoderConfig) -> int:
    sizes = products.shapes(config.hidden_size, config.intermediate_size)
    return sum(depth * columns for depth, columns in sizes)


def _global_operations(config: EncoderConfig, lengths: Sequence[int]) -> int:
    """Of one global layer's scores and weighted sums."""
    return sum(4 * length * length * config.hidden_size for length in lengths)


def _tell(result: Mapping[str, Any]) -> None:
    print(result["model"])
    for case, measured in result["cases"].items():
        for name, speed in measured["product_gflops"].items():
            print(f"  {case} products, {name:16s} {speed:7.0f} GFLOP/s")
        for precision, found in measured["precisions"].items():
            shares = ", ".join(
                f"{name} {part['share_of_time']:.0%}" for name, part in found["parts"].items()
            )
            print(f"  {case} {precision:9s} {found['share_of_ceiling']:.0%} of it; time: {shares}")


if __name__ == "__main__":
    sys.exit(main())
