"""What terminals and notebooks show: results as tables, and progress bars."""

import html
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

# Of a line of progress, without its bar: the rest of the terminal's width is the bar's.
_TEXT_WIDTH = 72


@dataclass(frozen=True)
class Table:
    """Names of columns, rows of cells, and lines below them; the lines alone if there is no row.

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
        if not self.rows:
            return "\n".join(self.notes)
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
        table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
        return (table if self.rows else "") + notes


class Shown:
    """Base of results that print as a table."""

    def table(self) -> Table:
        """Return the table that is printed."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def scores_table(
    rows: Mapping[str, Mapping[str, object]], first: str, notes: Sequence[str] = ()
) -> Table:
    """Return a table with a row per name and a column for each score that occurs.

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
    """Format floats with four decimals and integers with separators; leave the rest unchanged."""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if type(value) is int else str(value)


class Bar(Protocol):
    """A progress bar that is redrawn with every report."""

    def show(self, title: str, done: float, total: float | None, details: str) -> None:
        """Draw the bar; without a total it only moves."""

    def close(self) -> None:
        """Remove the bar."""


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_shell is not None and hasattr(get_shell(), "kernel")


def open_bar(title: str) -> Bar:
    """Open the bar for the output: a terminal, a notebook, or anything else."""
    if not in_notebook() and sys.stderr.isatty():
        return _TerminalBar(title)
    return _NotebookBar(title)


class _TerminalBar:
    """A bar on one line of a terminal."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        console = Console(stderr=True, highlight=False)
        bar_width = max(8, min(40, console.width - _TEXT_WIDTH))
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=bar_width, complete_style="cyan", finished_style="green"),
            TaskProgressColumn(),
            TextColumn("{task.fields[details]}", markup=False),
            console=console,
            refresh_per_second=4,
            transient=True,  # what remains to be said is said by the verb
        )
        self._task = self._progress.add_task(title, total=None, details="")
        self._progress.start()

    def show(self, title: str, done: float, total: float | None, details: str) -> None:
        self._progress.update(
            self._task, description=title, completed=done, total=total, details=details
        )

    def close(self) -> None:
        self._progress.stop()


class _NotebookBar:
    """tqdm's bar, a widget where ipywidgets are installed and a line of text elsewhere."""

    def __init__(self, title: str) -> None:
        module = "notebook" if in_notebook() and find_spec("ipywidgets") else "std"
        make: Any = import_module(f"tqdm.{module}").tqdm
        self._bar = make(desc=title, bar_format="{desc} |{bar}|", leave=False)

    def show(self, title: str, done: float, total: float | None, details: str) -> None:
        self._bar.total, self._bar.n = total, done
        self._bar.set_description_str(title, refresh=False)
        shown = details.replace("{", "{{").replace("}", "}}")
        self._bar.bar_format = f"{{desc}} |{{bar}}| {shown}"
        self._bar.update(0)

    def close(self) -> None:
        self._bar.close()
