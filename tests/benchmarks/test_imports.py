"""The benchmarks' modules import each other in one direction only."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import benchmarks

FOLDER = Path(benchmarks.__file__).parent


def modules() -> dict[str, Path]:
    """Every module by its full name; a package by that of its `__init__`."""
    paths = FOLDER.rglob("*.py")
    names = (
        ".".join(("benchmarks", *path.relative_to(FOLDER).with_suffix("").parts)) for path in paths
    )
    return {
        name.removesuffix(".__init__"): path
        for name, path in zip(names, FOLDER.rglob("*.py"), strict=True)
    }


def imported(path: Path, known: set[str]) -> Iterator[str]:
    """The benchmarks' modules that a file imports anywhere, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{each.name}" for each in node.names]
            yield from (name if name in known else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)


def circle(found: dict[str, set[str]]) -> list[str]:
    """The modules of an import circle; none if there is none."""
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_there_is_no_circle() -> None:
    known = modules()
    found = {
        name: {each for each in imported(path, set(known)) if each in known} - {name}
        for name, path in known.items()
    }
    assert len(found) > 30 and any(found.values())
    assert circle(found) == []


def test_a_circle_would_be_seen() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}


def test_what_groups_share_knows_no_group() -> None:
    """The modules beside the groups import none of them."""
    known = modules()
    groups = {name for name, path in known.items() if path.name == "__init__.py"} - {"benchmarks"}
    for name, path in known.items():
        if name.count(".") == 1 and name not in groups | {"benchmarks.gpu"}:
            names = imported(path, set(known))
            of_groups = [each for each in names if ".".join(each.split(".")[:2]) in groups]
            assert not of_groups, name
