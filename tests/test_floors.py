"""The floors: imports go down only, and rooms on one floor do not know one another."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import modernbert

PACKAGE = Path(modernbert.__file__).parent

# From the ground up. A new room must be given its floor here.
FLOORS = (
    {
        "batch",
        "devices",
        "display",
        "settings",
        "errors",
        "extras",
        "files",
        "hashes",
        "hub",
        "json_files",
        "kinds",
        "overrides",
        "reading",
        "processes",
        "threads",
        "word_splitting",
    },
    {"tokenizer", "data", "model", "training", "metrics", "report"},
    {"inference", "interop"},
    {"tasks", "planning"},
    {"serving", "export", "evaluation"},
    {"cli"},
    {"api"},
    {"sklearn"},
    {"__main__"},
)

# Within `tasks`, what each of its rooms may import; modules beside the rooms know none of them.
ROOMS_OF_TASKS: dict[str, set[str]] = {
    "pretraining": set(),
    "tuning": set(),
    "labels": {"tuning"},
    "ranking": {"tuning"},
    "finetune": {"tuning", "labels", "ranking"},  # of which it takes the recipes alone
}

# Whoever imports one of these makes `--help` wait.
HEAVY = ("torch", "numpy", "transformers", "pyarrow", "matplotlib", "tokenizers", "safetensors")


@dataclass(frozen=True)
class Import:
    """One import statement: the module that it stands in, and the module that it names."""

    importer: str
    imported: str
    line: int
    at_module_level: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


@cache
def sources() -> dict[str, Path]:
    """Every module of the package by its full name; `modernbert` is the package itself."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("modernbert", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for module in sources() for found in imports_of(module))


def imports_of(module: str) -> Iterator[Import]:
    tree = ast.parse(sources()[module].read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        for name in imported_names(node):
            yield Import(module, name, node.lineno, id(node) in top)


def imported_names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute, so that their floor can be read"
        base = node.module or ""
        for alias in node.names:
            submodule = f"{base}.{alias.name}"
            yield submodule if submodule in sources() else base


def room(module: str) -> str:
    """The room that a module of the package belongs to; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def floor(name: str) -> int:
    return next(index for index, rooms in enumerate(FLOORS) if name in rooms)


def own_imports() -> list[Import]:
    """Those of this package, from anywhere but its `__init__`, which only tells where names are."""
    return [
        found
        for found in imports()
        if found.imported.split(".")[0] == "modernbert" and found.importer != "modernbert"
    ]


def test_every_room_has_a_floor() -> None:
    rooms = {room(module) for module in sources()} - {""}
    assert rooms <= set().union(*FLOORS)


def test_imports_go_down_only() -> None:
    upward = [
        str(found)
        for found in own_imports()
        if found.imported != "modernbert"
        and floor(room(found.imported)) > floor(room(found.importer))
    ]
    assert upward == []


def test_rooms_on_one_floor_do_not_import_each_other() -> None:
    sideways = [
        str(found)
        for found in own_imports()
        if room(found.imported) != room(found.importer)
        and found.imported != "modernbert"
        and floor(room(found.imported)) == floor(room(found.importer)) > 0
    ]
    assert sideways == []


def test_rooms_of_tasks_stand_on_each_other_in_one_direction() -> None:
    """A purpose knows what all share; nothing shared knows a purpose."""
    wrong = []
    for found in own_imports():
        here, there = inner_room(found.importer), inner_room(found.imported)
        if here is not None and there and there not in {here, *ROOMS_OF_TASKS.get(here, set())}:
            wrong.append(str(found))
    assert wrong == []


def inner_room(module: str) -> str | None:
    """The room of `tasks` that a module is in; empty beside the rooms, None outside of `tasks`."""
    parts = module.split(".")
    if parts[:2] != ["modernbert", "tasks"]:
        return None
    return parts[2] if len(parts) > 2 and parts[2] in ROOMS_OF_TASKS else ""


def test_only_the_command_line_asks_the_package_itself() -> None:
    """`from modernbert import Encoder` inside a room would go round the floors."""
    around = [
        str(found)
        for found in own_imports()
        if found.imported == "modernbert" and room(found.importer) != "cli"
    ]
    assert around == []


def test_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {module: set() for module in sources()}
    for found in own_imports():
        graph[found.importer].add(found.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_only_the_command_line_prints() -> None:
    """Libraries return values and raise; what a person sees is made in one room."""
    printing = []
    for module, path in sources().items():
        if room(module) == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                printing.append(f"{module}:{node.lineno}")
    terminal = [str(f) for f in imports() if f.imported.split(".")[0] in ("typer", "rich", "click")]
    assert printing == []
    drawing = ("modernbert.cli", "modernbert.display")
    assert [found for found in terminal if not found.startswith(drawing)] == []


def test_verbs_import_what_is_heavy_when_they_run() -> None:
    """At the top of a verb stand only errors and settings, whose modules import nothing heavy."""
    early = [
        str(found)
        for found in imports()
        if room(found.importer) == "cli" and found.at_module_level
        if found.imported.split(".")[0] in HEAVY
        or (found.imported.startswith("modernbert.") and not is_light(found.imported))
    ]
    assert early == []


def is_light(module: str) -> bool:
    """Whether a verb may import it early; the next test finds out whether that is true."""
    light = {"cli", "errors", "extras", "files", "hashes", "json_files", "overrides"}
    light |= {"display", "reading"}
    ends = ("settings", "recipe", "suite", "tasks.finetune", "remote_files", "export.formats")
    return room(module) in light or module.endswith(ends)


@pytest.mark.parametrize(
    "statement",
    [
        "import modernbert",
        "import modernbert.cli",
        "import modernbert.errors, modernbert.settings",
    ],
)
def test_importing_waits_for_nothing_heavy(statement: str) -> None:
    program = f"import sys; {statement}; print(*(set(sys.modules) & set({HEAVY!r})))"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.split() == []
