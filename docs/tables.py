"""Writes the parts of the documents that are generated: `python -m docs.tables`.

- The tables of files in docs/architecture.md: each file with the first line of its docstring, or of
  the comment that it begins with.
- The tables of keys in docs/recipes.md, from the fields of the settings classes.
- The tables of docs/learning.md, from benchmarks/results.
- llms.txt as a whole; see `docs.assistant`.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`. `tests/test_docs.py`
checks that nothing is out of date.
"""

import ast
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args, get_origin

import tomli_w

from benchmarks.finetune import optimizers
from benchmarks.learning import standings
from docs import assistant
from modernbert.settings import Field, fields_of, without_none
from modernbert.tasks.pretraining.recipe import PHASES_OWN, PhaseRecipe, PretrainingRecipe

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "modernbert"
SUFFIXES = (".py", ".c", ".h", ".toml", ".html", ".css", ".js")
COMMENTS = {
    ".c": r"/\*\s*(.+)",
    ".h": r"/\*\s*(.+)",
    ".css": r"/\*\s*(.+)",
    ".toml": r"#\s*(.+)",
    ".html": r"<!--\s*(.+)",
    ".js": r"//\s*(.+)",
}


def summary(path: Path) -> str:
    """The first line of a module's docstring, or of the first comment of another file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        first = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    else:
        found = re.search(COMMENTS[path.suffix], text)
        first = found[1].removesuffix("*/").removesuffix("-->") if found else ""
    return first.strip().removesuffix(".")


@cache
def imports(path: Path) -> tuple[Path, ...]:
    """The files of the package that a module imports, in alphabetical order."""
    if path.suffix != ".py":
        return ()
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found.update(file for name in names if (file := _file_of(name)) is not None)
    return tuple(sorted(found - {path}))


def _file_of(module: str) -> Path | None:
    if not module.startswith("modernbert."):
        return None
    path = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return path if path.is_file() else None


def files_of(folder: Path) -> list[Path]:
    """The files that stand directly in a folder, each after those of them that it imports."""
    ordered: dict[Path, None] = {}

    def visit(path: Path) -> None:
        for other in imports(path):
            if other.parent == folder and other not in ordered:
                visit(other)
        ordered[path] = None

    for path in sorted(folder.iterdir()):
        if path.suffix in SUFFIXES and not path.name.startswith("__") and path not in ordered:
            visit(path)
    return list(ordered)


def rooms() -> list[Path]:
    """The folders of the package, each after those that it imports from, inner ones after outer."""
    top = [path.parent for path in PACKAGE.glob("*/__init__.py")]
    needs = {
        room: {
            PACKAGE / other.relative_to(PACKAGE).parts[0]
            for path in room.rglob("*.py")
            for other in imports(path)
        }
        - {room}
        for room in top
    }
    ordered: list[Path] = []
    while len(ordered) < len(top):
        ready = [
            room for room in top if room not in ordered and not needs[room] & {*top} - {*ordered}
        ]
        ordered += sorted(ready)
    return [folder for room in ordered for folder in (room, *sorted(_inner(room)))]


def _inner(room: Path) -> Iterator[Path]:
    for folder in room.rglob("*"):
        if folder.is_dir() and any(path.suffix in SUFFIXES for path in folder.iterdir()):
            yield folder


def file_tables() -> str:
    """A heading and a table for each folder of the package."""
    return "\n\n".join(
        ["### On the ground floor", _table(PACKAGE), *(_section(room) for room in rooms())]
    )


def _section(room: Path) -> str:
    heading = f"### `{room.relative_to(PACKAGE)}/`"
    start = room / "__init__.py"
    return "\n\n".join([heading, *([f"{summary(start)}."] if start.exists() else []), _table(room)])


def _table(folder: Path) -> str:
    rows = [f"| `{path.name}` | {summary(path)} |" for path in files_of(folder)]
    return "\n".join(["| file | what it holds |", "|---|---|", *rows])


# The tables of a recipe by their keys: the class of each is found from its field.
RECIPE_TABLES = (
    "",
    "averaging",
    "computation",
    "log",
    "phases",
    "shard_cache",
    "sources",
    "model",
    "packing",
    "masking",
    "batch",
    "batch.ramp",
    "training",
    "training.schedule",
    "evaluation",
)


def table_of_keys(name: str) -> str:
    """The keys of one table of a recipe, with defaults and descriptions; `` is the top."""
    rows = [
        f"| `{field.name}` | {_default(field.default)} | {field.doc.text} |"
        for field in _keys_of(name)
        if field.doc is not None
    ]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def _keys_of(name: str) -> list[Field]:
    """The fields of a table; those of a phase stand at the top too, apart from its own two."""
    if name == "":
        keys = [field for field in fields_of(PhaseRecipe) if field.name not in PHASES_OWN]
        return [*fields_of(PretrainingRecipe), *keys]
    if name == "phases":
        return [field for field in fields_of(PhaseRecipe) if field.name in PHASES_OWN]
    return fields_of(_class_of(name))


def _class_of(name: str) -> type:
    of_run = {field.name: field.type for field in fields_of(PretrainingRecipe)}
    found: Any = None
    types = of_run | {field.name: field.type for field in fields_of(PhaseRecipe)}
    for part in name.split("."):
        found = without_none(types[part])
        found = get_args(found)[0] if get_origin(found) is tuple else found
        types = {field.name: field.type for field in fields_of(found)}
    assert isinstance(found, type)
    return found


def _default(value: Any) -> str:
    if value is MISSING:
        return "required"
    return "none" if value is None else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 100_000:
        return f"{value:_}"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()


def race() -> str:
    """The standings of the race of ways to train."""
    return standings.report(*standings.read_result(ROOT / standings.FOLDER / standings.RESULT_FILE))


def tuned() -> str:
    """The optimizers of fine-tuning side by side."""
    return optimizers.table(json.loads((ROOT / optimizers.RESULT).read_text())["rows"])


GENERATED: dict[str, dict[str, Callable[[], str]]] = {
    "docs/architecture.md": {"files": file_tables},
    "docs/learning.md": {"results": race, "fine-tuning": tuned},
    "docs/recipes.md": {
        f"keys {name}".strip(): partial(table_of_keys, name) for name in RECIPE_TABLES
    },
}


def documents() -> dict[Path, str]:
    """The text that each document with generated parts ought to have."""
    found = {}
    for name, parts in GENERATED.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        for part, generate in parts.items():
            text = replace_part(text, part, generate())
        found[ROOT / name] = text
    return {**found, ROOT / "llms.txt": assistant.text()}


def replace_part(text: str, name: str, content: str) -> str:
    """Put new content between the marks of a generated part."""
    part = re.compile(rf"(<!-- generated: {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
    if not part.search(text):
        raise SystemExit(f"no part is marked with <!-- generated: {name} --> and <!-- end -->")
    return part.sub(lambda found: f"{found[1]}\n{content}\n{found[2]}", text)


def main() -> None:
    """Write each document that is out of date, and name it."""
    for path, text in documents().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: brought up to date", file=sys.stderr)


if __name__ == "__main__":
    main()
