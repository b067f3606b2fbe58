"""A bar that shows how far a piece of work is: rich's on a terminal, tqdm's in a notebook.

This is the only place that draws bars. The command line adds the time that is left.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

# Of a line of progress, without its bar: the rest of the terminal's width is the bar's.
_TEXT_WIDTH = 72


class Bar(Protocol):
    """A bar that is drawn again with every report."""

    def show(self, title: str, done: float, total: float | None, details: str) -> None:
        """Draw it; without a total it only moves."""

    def close(self) -> None:
        """Remove it."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_shell is not None and hasattr(get_shell(), "kernel")


def open_bar(title: str) -> Bar:
    """A bar for where the output goes: a terminal, a notebook, or anything else."""
    if not in_notebook() and sys.stderr.isatty():
        return _TerminalBar(title)
    return _NotebookBar(title)


class _TerminalBar:
    """The one line of a terminal that is drawn anew."""

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
