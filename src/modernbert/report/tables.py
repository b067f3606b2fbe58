"""Tables that are charts as well: bars, and a matrix of counts."""

from collections.abc import Sequence

from modernbert.report.formats import Format
from modernbert.report.page import Html, element


def bars(header: tuple[str, str], rows: Sequence[tuple[str, float]], format: Format) -> Html:
    """Names with values, each with a bar; the longest is the greatest value's."""
    longest = max((abs(value) for _, value in rows), default=0.0) or 1.0
    lines = [
        element(
            "tr",
            element("td", name),
            element("td", format(value), class_="number"),
            element("td", _bar(abs(value) / longest)),
        )
        for name, value in rows
    ]
    name, figure = header
    names = [element("th", name), element("th", figure, class_="number"), element("th", "")]
    inner = element(
        "table", element("thead", element("tr", *names)), element("tbody", *lines), class_="bars"
    )
    return element("div", inner, class_="scroll")


def matrix(
    names: Sequence[str], counts: Sequence[Sequence[int]], *, rows: str, columns: str
) -> Html:
    """A square of counts, such as a confusion matrix; a cell's colour is its share of its row.

    rows, columns: what the two sides are.
    """
    corner = element("th", f"{rows} ↓ {columns} →")
    top = element("tr", corner, *(element("th", name) for name in names))
    lines = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row) or 1
        cells = (
            element("td", f"{n:,}", style=f"--share:{n / total:.3f}", class_="number") for n in row
        )
        lines.append(element("tr", element("th", name), *cells))
    inner = element("table", element("thead", top), element("tbody", *lines), class_="heat")
    return element("div", inner, class_="scroll")


def _bar(share: float) -> Html:
    return element("span", class_="bar f0", style=f"width:{100 * share:.1f}%")
