"""The picture of the README and of the site's start page: `python -m docs.speed_picture`.

It shows the tokens per second of `benchmarks/results/cpu/zen5/512-ragged.json`, once for light
pages and once for dark ones. Texts stay texts, so that the figures can be read and tested.
"""

import re
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import results

RESULT = Path(__file__).parents[1] / "benchmarks/results/cpu/zen5/512-ragged.json"
FOLDER = Path(__file__).parent / "images"
# The bars of each number format, by their names in the result and on the picture.
BARS = {
    "float32": {
        "ours float32": "modernbert",
        "openvino float32": "OpenVINO",
        "onnxruntime float32": "ONNX Runtime",
        "transformers float32": "transformers",
    },
    "bfloat16": {
        "ours bfloat16": "modernbert",
        "openvino bfloat16": "OpenVINO",
        "transformers bfloat16": "transformers",
    },
    "int8": {
        "ours int8": "modernbert",
        "openvino int8 static": "OpenVINO",
        "onnxruntime int8": "ONNX Runtime",
    },
}
# Text, our bars and those of others.
THEMES = {"light": ("#24292f", "#c8502d", "#a9b4c0"), "dark": ("#e6edf3", "#f0825f", "#57606a")}


def draw(result: dict[str, Any], theme: str) -> Figure:
    """Bars of everyone's tokens per second, one group for each number format."""
    text, _, _ = THEMES[theme]
    figure = Figure(figsize=(5.6, 4.8), layout="constrained")
    groups = figure.subplots(
        len(BARS), sharex=True, gridspec_kw={"height_ratios": [len(each) for each in BARS.values()]}
    )
    for axes, (precision, names) in zip(groups, BARS.items(), strict=True):
        speeds = {
            shown: result["timings"][name]["tokens_per_second"] for name, shown in names.items()
        }
        _bars(axes, speeds, theme)
        axes.set_title(precision, loc="left", color=text, fontsize=10, fontweight="bold")
    title = "Tokens per second: base width, texts of about 256 tokens,\ntwo cores of a Zen 5 CPU"
    figure.suptitle(title, color=text, fontsize=10, x=0.01, ha="left")
    groups[0].set_xlim(right=1.12 * result["timings"]["ours int8"]["tokens_per_second"])
    return figure


def _bars(axes: Axes, speeds: dict[str, float], theme: str) -> None:
    text, ours, others = THEMES[theme]
    colours = [ours if name == "modernbert" else others for name in speeds]
    bars = axes.barh(list(speeds), list(speeds.values()), color=colours, height=0.72)
    axes.bar_label(bars, fmt="{:,.0f}", padding=4, color=text, fontsize=9)
    axes.tick_params(left=False, bottom=False, labelbottom=False, labelcolor=text, labelsize=9)
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)
    axes.invert_yaxis()


def main(folder: Path = FOLDER) -> None:
    """Draw both pictures."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "speed"}):
        for theme in THEMES:
            path = folder / f"speed-{theme}.svg"
            figure = draw(results.read(RESULT), theme)
            figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
            drawn = path.read_text(encoding="utf-8")
            path.write_text(re.sub(r"font-family: [^;]+", "font-family: Arial, sans-serif", drawn))
            print(path)


if __name__ == "__main__":
    main(*(Path(each) for each in sys.argv[1:]))
