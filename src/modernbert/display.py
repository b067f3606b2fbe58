"""Results that print as a table: aligned text in a terminal, HTML in a notebook."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Names of columns, rows of cells, and lines below them.

    >>> print(Table(("split", "f1"), [("dev", 0.91234), ("test", 0.9)], ["model: runs/a/model"]))
    split  f1
    dev    0.9123
    test   0.9000
    model: runs/a/model
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [list(self.header), *([shown(cell) for cell in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        aligned = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([*aligned, *self.notes])

    def _repr_html_(self) -> str:
        top = "".join(f"<th>{html.escape(name)}</th>" for name in self.header)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(shown(cell))}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        notes = "".join(f"<div>{html.escape(note)}</div>" for note in self.notes)
        return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{notes}"


class Shown:
    """Base of results that print as a table."""

    def table(self) -> Table:
        """What is printed."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def scores_table(
    rows: Mapping[str, Mapping[str, object]], first: str, notes: Sequence[str] = ()
) -> Table:
    """A row for each name, with a column for each score that any of them has.

    Args:
        rows: Scores by name.
        first: The header of the names.
        notes: Lines below the table.
    """
    columns = list(dict.fromkeys(name for scores in rows.values() for name in scores))
    cells = [
        [name, *(scores.get(column, "") for column in columns)] for name, scores in rows.items()
    ]
    return Table((first, *columns), cells, notes)


def shown(value: object) -> str:
    """A number with four decimals, or with thousands apart; anything else as it is."""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if type(value) is int else str(value)
