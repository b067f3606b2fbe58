"""The tutorials: programs that are notebooks, and the pages that show what they printed.

`python -m docs.tutorial_pages NAME ...` runs tutorials in full, in folders of their own, and
records what each cell printed and drew in docs/tutorials/recorded. The pages of the site show it.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "tutorials"
RECORDED = FOLDER / "recorded"
# In the order of the navigation.
NAMES = (
    "corpus",
    "domain",
    "labels",
    "entities",
    "search",
    "distil",
    "serve",
    "accelerate",
    "plan",
)


@dataclass(frozen=True)
class Cell:
    """A cell of a tutorial."""

    is_code: bool
    text: str


def cells(name: str) -> list[Cell]:
    """The cells of a tutorial."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    return [Cell(each["cell_type"] == "code", each["source"]) for each in notebook["cells"]]


def notebook(name: str) -> str:
    """A tutorial as the text of a notebook."""
    return str(jupytext.writes(jupytext.read(FOLDER / f"{name}.py"), fmt="ipynb"))


def title(name: str) -> str:
    """The title of a tutorial."""
    return cells(name)[0].text.partition("\n")[0].removeprefix("# ")


def run(name: str, folder: Path) -> list[dict[str, Any]]:
    """Run a tutorial in a folder.

    Returns:
        What each cell of code printed and the pictures that it left in the folder, by their names.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    outputs = []
    with contextlib.chdir(folder):
        for number, cell in enumerate(each for each in cells(name) if each.is_code):
            before, printed = set(folder.glob("*.svg")), io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(cell.text, f"{name}, cell {number}", "exec"), namespace)
            pictures = sorted(path.name for path in {*folder.glob("*.svg")} - before)
            outputs.append({"printed": printed.getvalue(), "pictures": pictures})
    return outputs


def record(name: str) -> None:
    """Run a tutorial in full and keep what it printed and drew."""
    os.environ.setdefault("MODERNBERT_START", str(ROOT / "benchmarks" / "finetune" / "start"))
    RECORDED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        outputs = run(name, Path(folder))
        minutes = (time.process_time() - begun) / 60
        for picture in (each for output in outputs for each in output["pictures"]):
            (RECORDED / picture).write_bytes(Path(folder, picture).read_bytes())
    kept = {"date": time.strftime("%Y-%m-%d"), "cpu_minutes": round(minutes, 1), "cells": outputs}
    path = RECORDED / f"{name}.json"
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def recorded(name: str) -> dict[str, Any] | None:
    """What was kept of a tutorial."""
    path = RECORDED / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def page(name: str) -> str:
    """A tutorial as a page, each cell followed by what it printed."""
    kept = recorded(name)
    outputs = iter(kept["cells"] if kept else ())
    parts = []
    for cell in cells(name):
        if not cell.is_code:
            parts.append(cell.text)
            continue
        parts.append(f"```py\n{cell.text}\n```")
        parts += _shown(next(outputs, {"printed": "", "pictures": []}))
        if len(parts) == 2:
            parts.append(_note(name, kept))
    return "\n\n".join(parts) + "\n"


def _note(name: str, kept: dict[str, Any] | None) -> str:
    took = (
        f" Run on {kept['date']}, it took {kept['cpu_minutes']} minutes of a CPU." if kept else ""
    )
    return f"[This page as a notebook]({name}.ipynb), [as a program]({name}.py).{took}"


def _shown(output: dict[str, Any]) -> Iterator[str]:
    if output["printed"].strip():
        yield f'```text title="Output"\n{output["printed"].rstrip()}\n```'
    for picture in output["pictures"]:
        yield f"![{picture.removesuffix('.svg')}](recorded/{picture})"


def overview() -> str:
    """A list of all tutorials, with what each says of itself first."""
    rows = []
    for name in NAMES:
        _, _, about = cells(name)[0].text.partition("\n\n")
        first = about.replace("\n", " ").split(". ")[0].removesuffix(".")
        rows.append(f"| [{title(name)}]({name}.md) | {first}. |")
    return "\n".join(
        [
            "# Tutorials",
            "",
            "Each tutorial is a program that is a notebook too. The pages show what it printed on "
            "a Zen 4 CPU; the tests run all of them in a small form. They need no network and "
            "make their own data. Those that fine-tune start from a small model of the repository, "
            "so that their figures show how things are done, and not how good they can get.",
            "",
            "| tutorial | what you do |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def main(names: list[str]) -> None:
    """Run tutorials and record them."""
    console = Console(stderr=True)
    for name in names or NAMES:
        console.print(f"running {name}")
        record(name)


if __name__ == "__main__":
    main(sys.argv[1:])
