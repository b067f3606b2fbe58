"""Two pictures: the difference of every claim with its spread, and the loss by position."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

_COLOURS = {"reproduced": "#3b7a57", "the opposite": "#b5482f", "no clear difference": "#8a8a8a"}
_CURVES = {
    "usual": ("before extension", "#9a9a9a"),
    "not-extended": ("trained on at 1,024", "#3b6ea5"),
    "extended": ("extended to 8,192", "#d1603d"),
}


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Write `claims.png`, and `by-position.png` where there are such scores."""
    claims = {name: found for name, found in result["claims"].items() if found}
    if claims:
        _claims(claims).savefig(folder / "claims.png")
    if all(result["scores"].get(arm) for arm in _CURVES):
        _by_position(result["scores"]).savefig(folder / "by-position.png")


def _claims(claims: Mapping[str, Mapping[str, Any]]) -> Figure:
    figure = Figure(figsize=(9, 0.6 * len(claims) + 1.4), layout="constrained", dpi=130)
    axes = figure.add_subplot()
    for row, found in enumerate(reversed(claims.values())):
        colour = _COLOURS[found["verdict"]]
        low, high = found["interval"]
        axes.plot([low, high], [row, row], color=colour, linewidth=2)
        axes.plot(found["differences"], [row] * len(found["differences"]), ".", color=colour)
        axes.plot(found["mean_difference"], row, "o", color=colour)
        axes.text(
            1.02,
            row,
            f"{found['mean_difference']:+.3f}  {found['verdict']}",
            transform=axes.get_yaxis_transform(),
            verticalalignment="center",
            color=colour,
        )
    axes.axvline(0, color="#333333", linewidth=1)
    axes.set_yticks(range(len(claims)), list(reversed(claims)))
    axes.set_xlabel("held-out loss, difference in nats a token; left of 0 the claim holds")
    axes.set_title("Claims of the recipe at 4.6M to 12M parameters: mean, seeds and 95% interval")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _by_position(scores: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained", dpi=130)
    axes = figure.add_subplot()
    names: Sequence[str] = []
    for arm, (label, colour) in _CURVES.items():
        rows = [each["books_by_position"] for each in scores[arm].values()]
        losses = [mean(each[i]["loss"] for each in rows) for i in range(len(rows[0]))]
        names = [f"{row['from']:,} to {row['to']:,}" for row in rows[0]]
        axes.plot(range(len(losses)), losses, "o-", color=colour, label=label)
    axes.set_xticks(range(len(names)), names, rotation=20)
    axes.set_xlabel("position in the text, tokens")
    axes.set_ylabel("held-out loss, nats a masked token")
    axes.set_title("Books, each up to 8,192 tokens at once")
    axes.grid(axis="y", color="#e6e6e6")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
