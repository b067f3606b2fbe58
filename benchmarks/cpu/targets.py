"""The targets, and what the results say about each."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import results

Value = Callable[[Mapping[str, Any], str], float]
"""Reads a figure from a result, of a precision of ours."""


class Target(NamedTuple):
    """A figure that is aimed at.

    row: name of the result, in which `value` reads the figure.
    at_most: whether less is better.
    """

    row: str
    claim: str
    against: str
    precision: str
    wanted: float
    value: Value
    at_most: bool = False


def over(*prefixes: str) -> Value:
    """The speedup over the best of the peers whose names begin so; over all but BERT for none."""
    besides = ("ours", "bert")  # BERT is in results of before

    def value(result: Mapping[str, Any], precision: str) -> float:
        return min(
            float(factor)
            for name, factor in result["speedups"][f"ours {precision}"].items()
            if (name.startswith(prefixes) if prefixes else not name.startswith(besides))
        )

    return value


def over_own(other: str) -> Value:
    """How many times as fast one of our precisions is as another, by the medians."""

    def value(result: Mapping[str, Any], precision: str) -> float:
        ours, theirs = (result["timings"][f"ours {name}"] for name in (precision, other))
        return float(ours["tokens_per_second"] / theirs["tokens_per_second"])

    return value


def share(result: Mapping[str, Any], precision: str) -> float:
    """The share of the speed of matrix products alone."""
    return float(result["share_of_ceiling"][f"ours {precision}"])


def memory(result: Mapping[str, Any], precision: str) -> float:
    """Our memory over that of transformers."""
    ours, theirs = (result["engines"][f"{who} {precision}"] for who in ("ours", "transformers"))
    return float(ours["above_mb"] / theirs["above_mb"])


def _pair(
    row: str,
    claim: str,
    against: str,
    float32: float,
    bfloat16: float,
    value: Value,
    *,
    at_most: bool = False,
) -> list[Target]:
    return [
        Target(row, claim, against, precision, wanted, value, at_most)
        for precision, wanted in (("float32", float32), ("bfloat16", bfloat16))
    ]


EVERYONE = over()
TRANSFORMERS, OPENVINO = over("transformers"), over("openvino")
ENGINES, ONNX_INT8 = over("onnxruntime", "openvino"), over("onnxruntime int8")
DENSE, SPARSE = over("transformers dense"), over("transformers sparse")

AVX512 = (
    *_pair("512-fixed", "512 fixed", "transformers", 1.15, 1.4, TRANSFORMERS),
    *_pair("512-fixed", "512 fixed", "the best engine", 1.0, 1.15, EVERYONE),
    *_pair("512-ragged", "512 ragged", "transformers", 1.2, 1.5, TRANSFORMERS),
    *_pair("512-ragged", "512 ragged", "the best engine", 1.0, 1.15, EVERYONE),
    *_pair("uniform-padded", "16 to 512 padded", "transformers", 2.2, 2.2, TRANSFORMERS),
    *_pair("uniform-padded", "16 to 512 padded", "OpenVINO", 1.7, 1.7, OPENVINO),
    *_pair("8192-fixed", "8,192 fixed", "the best engine", 2.3, 3.5, EVERYONE),
    *_pair("8192-ragged", "N(4096, 1024)", "the best engine", 1.8, 3, EVERYONE),
    *_pair("8192-padded", "8,192 to 500 padded", "transformers", 5, 6, TRANSFORMERS),
    Target("512-fixed", "512 fixed", "our bfloat16", "int8", 1.25, over("ours")),
    Target("512-fixed", "512 fixed", "the best engine", "int8", 1.3, EVERYONE),
    Target("512-ragged", "512 ragged", "our bfloat16", "int8", 1.25, over("ours")),
    Target("512-ragged", "512 ragged", "the best engine", "int8", 1.3, EVERYONE),
    *_pair("512-fixed", "share of the ceiling", "at 512", 0.8, 0.8, share),
    *_pair("8192-fixed", "share of the ceiling", "at 8192", 0.75, 0.6, share),
    *_pair("memory", "memory", "transformers", 1 / 4, 1 / 7, memory, at_most=True),
    *_pair("training-step-ragged", "training step", "dense logits", 5, 4.5, DENSE),
    *_pair("training-step-ragged", "training step", "sparse", 2, 1.8, SPARSE),
    *_pair("training-step-long", "training, long", "sparse", 5, 5, SPARSE),
    *_pair("request-32", "one request of 32", "the best engine", 1.0, 1.0, EVERYONE),
)

# Without AVX-512 there is no bfloat16.
AVX2 = (
    Target("512-fixed", "512 fixed", "the best engine", "float32", 1.3, ENGINES),
    Target("512-fixed", "512 fixed", "transformers", "float32", 1.45, TRANSFORMERS),
    Target("512-ragged", "512 ragged", "the best engine", "float32", 1.15, EVERYONE),
    Target("uniform-padded", "16 to 512 padded", "the best engine", "float32", 2.5, ENGINES),
    Target("uniform-padded", "16 to 512 padded", "transformers", "float32", 2.8, TRANSFORMERS),
    Target("8192-fixed", "8,192 fixed", "transformers", "float32", 3, TRANSFORMERS),
    Target("8192-ragged", "N(4096, 1024)", "transformers", "float32", 3, TRANSFORMERS),
    *(
        Target(f"request-{n}", f"one request of {n}", "the best engine", each, 1, EVERYONE)
        for n in (8, 32, 128, 512)
        for each in ("float32", "int8")
    ),
    *(
        Target(row, claim, against, "int8", wanted, value)
        for row, claim in (
            ("512-fixed", "512 fixed"),
            ("512-ragged", "512 ragged"),
            ("uniform-padded", "16 to 512 padded"),
        )
        for against, wanted, value in (
            ("ONNX Runtime", 1.4, ONNX_INT8),
            ("our float32", 1.7, over_own("float32")),
        )
    ),
    Target("512-fixed", "share of the ceiling", "at 512", "float32", 0.8, share),
    Target("512-fixed", "share of the ceiling", "at 512", "int8", 0.75, share),
    Target("training-step-tiny-blocks", "training step, tiny", "blocks", "float32", 1.6, SPARSE),
    Target("training-step-blocks", "training step, 12 x 384", "blocks", "float32", 1.25, SPARSE),
    Target("training-step-base-blocks", "training step, base", "blocks", "float32", 1.25, SPARSE),
    Target("training-step-ragged", "training step, 12 x 384", "padded, dense", "float32", 3, DENSE),
)


def targets_for(machine: str) -> tuple[Target, ...]:
    """The targets of a machine's folder, by the kernels that its name tells."""
    return AVX2 if any(f"-{name}" in machine for name in ("avx2", "neon", "torch")) else AVX512


def table(folder: Path) -> str:
    """Markdown: a line for each target; `-` where it was not measured."""
    lines = ["| claim | against | precision | target | measured | |", "|---|---|---|---|---|---|"]
    unrestricted: set[str] = set()
    for target in targets_for(folder.name):
        measured, verdict = "-", ""
        try:
            result = results.read(folder / f"{target.row}.json")
            value = target.value(result, target.precision)
        except (OSError, KeyError, ValueError):
            pass
        else:
            met = value <= target.wanted if target.at_most else value >= target.wanted
            measured, verdict = f"{value:.2f}", "met" if met else "not met"
            unrestricted |= set(result.get("not_restricted", ()))
        wanted = f"{'at most ' if target.at_most else ''}{target.wanted:.2f}"
        cells = (target.claim, target.against, target.precision, wanted, measured, verdict)
        lines.append(f"| {' | '.join(cells)} |")
    if unrestricted:
        lines += ["", f"Not kept to these instructions: {', '.join(sorted(unrestricted))}."]
    return "\n".join(lines)
