"""Claim: most of the time goes to matrix products at the speed of the chip.

    python -m benchmarks.cpu.ceiling

Of each precision and length: the arithmetic of a forward a second over that of products alone,
measured in the same run, and how the time divides among the parts of the model. The parts are
timed by themselves: products by a program of our own kernels, attention by the package's function,
which also rotates; what is left of the whole are norms, conversions, residuals and waiting.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks.cpu import command, products, results
from benchmarks.cpu.models import Model
from benchmarks.cpu.timing import interleave
from benchmarks.cpu.workloads import token_ids
from modernbert.batch import PackedBatch
from modernbert.model.config import EncoderConfig, LayerKind
from modernbert.model.encoder import Encoder
from modernbert.model.flops import flops_per_token
from modernbert.model.layout import Layout
from modernbert.model.native import functions as native
from modernbert.model.native.engine import Precision, supports
from modernbert.model.rope import rotary_table

CASES: Mapping[str, tuple[int, ...]] = {"512": (512,) * 8, "8192": (8_192,)}
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
KINDS: tuple[LayerKind, ...] = ("global", "local")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = command.parser(__doc__ or "", rounds=3, seconds=120)
    made.add_argument("--cases", default=",".join(CASES), help="lengths, by commas")
    command.add_model(made, layers=11)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write."""
    options = parser().parse_args(arguments)
    command.use_threads(options)
    around = results.surroundings(num_threads=options.threads)
    model = command.model_of(options)
    result = {
        "benchmark": "ceiling",
        **around,
        "model": model.description,
        "cases": {case: _measure(model, CASES[case], options) for case in options.cases.split(",")},
    }
    results.write(options.out or results.FOLDER / "ceiling.json", result)
    _tell(result)
    return 0


def _measure(model: Model, lengths: Sequence[int], options: argparse.Namespace) -> dict[str, Any]:
    """Products by themselves, and every precision that there is here."""
    batch = PackedBatch.from_sequences(token_ids(lengths))
    sizes = model.config.hidden_size, model.config.intermediate_size
    turns = products.turns(*sizes)
    available = [name for name in PRECISIONS if supports(model.config, name)]
    for precision in available:
        encoder = Encoder.from_pretrained(model.folder, precision=precision)
        turns[f"whole {precision}"] = partial(_encode, encoder, batch)
    for kind in KINDS:
        for dtype in (torch.float32, torch.bfloat16):
            name = f"{kind} {str(dtype).removeprefix('torch.')}"
            turns[name] = _attention(model.config, kind, dtype, batch)
    for call in turns.values():
        call()
    seconds = interleave(
        turns,
        rounds=options.rounds,
        budget_seconds=options.seconds / len(CASES),
        min_turn_seconds=0.2,
    )
    speeds = products.gflops(seconds, *sizes)
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
    precision: str,
    times: Mapping[str, float],
    speeds: dict[str, float],
    config: EncoderConfig,
    lengths: Sequence[int],
) -> dict[str, Any]:
    """The share of the ceiling, and seconds and GFLOP/s of each part."""
    total = sum(lengths)
    weights = total * config.num_layers * _weights_of_a_layer(config) * 2
    whole = sum(length * flops_per_token(config, length) for length in lengths)
    narrow = precision if precision == "float32" else "bfloat16"
    num_global = config.layer_kinds.count("global")
    each = {"global": num_global, "local": config.num_layers - num_global}
    parts = {"products": weights / speeds[f"ours {precision}"] / 1e9}
    parts |= {f"{kind} attention": times[f"{kind} {narrow}"] * each[kind] for kind in each}
    seconds = times[f"whole {precision}"]
    parts["rest"] = seconds - sum(parts.values())
    ceiling = products.highest(speeds, precision)
    return {
        "seconds": seconds,
        "tokens_per_second": total / seconds,
        "gflops": whole / seconds / 1e9,
        "share_of_ceiling": whole / seconds / 1e9 / ceiling,
        "share_of_operations_in_attention": 1 - weights / whole,
        "parts": {
            name: {"seconds": part, "share_of_time": part / seconds} for name, part in parts.items()
        },
        "global_attention_gflops": _global_operations(config, lengths)
        / times[f"global {narrow}"]
        / 1e9,
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
