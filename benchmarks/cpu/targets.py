"""The targets, and what the results say about each."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import results

Found = Mapping[str, Any]


class Target(NamedTuple):
    """A figure that is aimed at.

    row: name of the result; value: reads it there.
    at_most: whether less is better.
    """

    claim: str
    against: str
    precision: str
    row: str
    wanted: float
    value: Callable[[Found], float]
    at_most: bool = False


def over(precision: str, *prefixes: str) -> Callable[[Found], float]:
    """The speedup over the best of the peers whose names begin so; over all but BERT for none."""

    def value(result: Found) -> float:
        besides = ("bert", "ours")
        return min(
            float(factor)
            for name, factor in result["speedups"][f"ours {precision}"].items()
            if (name.startswith(prefixes) if prefixes else not name.startswith(besides))
        )

    return value


def over_own(precision: str, other: str) -> Callable[[Found], float]:
    """How many times as fast one of our precisions is as another, by the medians."""

    def value(result: Found) -> float:
        speeds = [
            result["timings"][f"ours {name}"]["tokens_per_second"] for name in (precision, other)
        ]
        return float(speeds[0] / speeds[1])

    return value


def _share(case: str, precision: str) -> Callable[[Found], float]:
    def value(result: Found) -> float:
        return float(result["cases"][case]["precisions"][precision]["share_of_ceiling"])

    return value


def _memory(precision: str) -> Callable[[Found], float]:
    def value(result: Found) -> float:
        engines = result["engines"]
        ours, theirs = engines[f"ours {precision}"], engines[f"transformers {precision}"]
        return float(ours["above_mb"] / theirs["above_mb"])

    return value


def _share_of_time(*prefixes: str) -> Callable[[Found], float]:
    """The largest, where there are several for one peer."""

    def value(result: Found) -> float:
        shares = result["share_of_time"]
        return max(float(share) for name, share in shares.items() if name.startswith(prefixes))

    return value


def _pair(
    row: str, claim: str, against: str, float32: float, bfloat16: float, *prefixes: str
) -> list[Target]:
    return [
        Target(claim, against, precision, row, wanted, over(precision, *prefixes))
        for precision, wanted in (("float32", float32), ("bfloat16", bfloat16))
    ]


LIBRARIES = ("transformers", "sentence-transformers")
DENSE, SPARSE = "transformers dense", "transformers sparse"
PADDED, BLOCKS = map(_share_of_time, ("transformers padded", "transformers blocks"))

AVX512 = (
    *_pair("512-fixed", "512 fixed", "transformers", 1.15, 1.4, "transformers"),
    *_pair("512-fixed", "512 fixed", "the best engine", 1.0, 1.15),
    *_pair("512-ragged", "512 ragged", "the libraries", 1.2, 1.5, *LIBRARIES),
    *_pair("512-ragged", "512 ragged", "the best engine", 1.0, 1.15),
    *_pair("uniform-padded", "16 to 512 padded", "transformers", 2.2, 2.2, "transformers"),
    *_pair("uniform-padded", "16 to 512 padded", "OpenVINO", 1.7, 1.7, "openvino"),
    *_pair("8192-fixed", "8,192 fixed", "the best engine", 2.3, 3.5),
    *_pair("8192-ragged", "N(4096, 1024)", "the best engine", 1.8, 3),
    *_pair("8192-padded", "8,192 to 500 padded", "transformers", 5, 6, "transformers"),
    Target("512 fixed", "our bfloat16", "int8", "512-fixed", 1.25, over("int8", "ours")),
    Target("512 fixed", "the best engine", "int8", "512-fixed", 1.3, over("int8")),
    Target("512 ragged", "our bfloat16", "int8", "512-ragged", 1.25, over("int8", "ours")),
    Target("512 ragged", "the best engine", "int8", "512-ragged", 1.3, over("int8")),
    *(
        Target("share of the ceiling", f"at {case}", precision, "ceiling", wanted, value)
        for case, precision, wanted, value in (
            (case, precision, wanted, _share(case, precision))
            for case, precision, wanted in (
                ("512", "float32", 0.8),
                ("512", "bfloat16", 0.8),
                ("8192", "float32", 0.75),
                ("8192", "bfloat16", 0.6),
            )
        )
    ),
    Target("memory", "transformers", "float32", "memory", 1 / 4, _memory("float32"), True),
    Target("memory", "transformers", "bfloat16", "memory", 1 / 7, _memory("bfloat16"), True),
    *_pair("training-step-ragged", "training step", "dense logits", 5, 4.5, DENSE),
    *_pair("training-step-ragged", "training step", "sparse", 2, 1.8, SPARSE),
    *_pair("training-step-long", "training, long", "sparse", 5, 5, SPARSE),
    Target("time to loss", "rows padded", "auto", "time-to-loss", 1 / 3, PADDED, True),
    Target("time to loss", "blocks, sparse", "auto", "time-to-loss", 0.7, BLOCKS, True),
    *_pair("request-32", "one request of 32", "the best engine", 1.0, 1.0),
)


def _avx2(
    row: str, claim: str, against: str, wanted: float, *prefixes: str, precision: str = "float32"
) -> Target:
    return Target(claim, against, precision, row, wanted, over(precision, *prefixes))


ENGINES = ("onnxruntime", "openvino", "fastembed")
REQUESTS = (8, 32, 128, 512)
INT8 = "onnxruntime int8"

# Without AVX-512 there is no bfloat16, and the shares are those of the fastest product.
AVX2 = (
    _avx2("512-fixed", "512 fixed", "the best engine", 1.3, *ENGINES),
    _avx2("512-fixed", "512 fixed", "transformers", 1.45, "transformers"),
    _avx2("512-ragged", "512 ragged", "the best engine", 1.15),
    _avx2("uniform-padded", "16 to 512 padded", "the best engine", 2.5, *ENGINES),
    _avx2("uniform-padded", "16 to 512 padded", "transformers", 2.8, "transformers"),
    _avx2("8192-fixed", "8,192 fixed", "transformers", 3, "transformers"),
    _avx2("8192-ragged", "N(4096, 1024)", "transformers", 3, "transformers"),
    *(
        _avx2(f"request-{length}", f"one request of {length}", "the best engine", 1, precision=each)
        for length in REQUESTS
        for each in ("float32", "int8")
    ),
    *(
        target
        for row, claim in (
            ("512-fixed", "512 fixed"),
            ("512-ragged", "512 ragged"),
            ("uniform-padded", "16 to 512 padded"),
        )
        for target in (
            _avx2(row, claim, "ONNX Runtime", 1.4, INT8, precision="int8"),
            Target(claim, "our float32", "int8", row, 1.7, over_own("int8", "float32")),
        )
    ),
    Target("share of the ceiling", "at 512", "float32", "ceiling", 0.8, _share("512", "float32")),
    Target("share of the ceiling", "at 512", "int8", "ceiling", 0.75, _share("512", "int8")),
    _avx2("training-step-tiny-blocks", "training step, tiny", "blocks", 1.6, SPARSE),
    _avx2("training-step-blocks", "training step, 12 x 384", "blocks", 1.25, SPARSE),
    _avx2("training-step-base-blocks", "training step, base", "blocks", 1.25, SPARSE),
    _avx2("training-step-ragged", "training step, 12 x 384", "padded, dense", 3, DENSE),
)


def targets_for(machine: str) -> tuple[Target, ...]:
    """The targets of a machine's folder, by the kernels that its name tells."""
    return AVX2 if any(f"-{name}" in machine for name in ("avx2", "neon", "torch")) else AVX512


def table(folder: Path) -> str:
    """Markdown: a line for each target; `-` where it was not measured."""
    lines = ["| claim | against | precision | target | measured | |", "|---|---|---|---|---|---|"]
    unrestricted: set[str] = set()
    for target in targets_for(folder.name):
        sign = "at most " if target.at_most else ""
        measured, verdict = "-", ""
        try:
            result = results.read(folder / f"{target.row}.json")
            value = target.value(result)
        except (OSError, KeyError, ValueError):
            value = None
        if value is not None:
            met = value <= target.wanted if target.at_most else value >= target.wanted
            measured, verdict = f"{value:.2f}", "met" if met else "not met"
            unrestricted |= set(result.get("not_restricted", ()))
        cells = (target.claim, target.against, target.precision, f"{sign}{target.wanted:.2f}")
        lines.append(f"| {' | '.join(cells)} | {measured} | {verdict} |")
    if unrestricted:
        lines += ["", f"Not kept to these instructions: {', '.join(sorted(unrestricted))}."]
    return "\n".join(lines)
