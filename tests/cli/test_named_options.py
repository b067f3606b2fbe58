"""Options that messages, docstrings and documents name are options of the command line."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from modernbert.cli.app import app

ROOT = Path(__file__).parents[2]
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]")
# Of torchrun, pip, pytest, gunicorn and other programs.
_OTHERS = {"--nproc-per-node", "--preload", "--help", "--build-id", "--no"}


def _options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for inner in getattr(command, "commands", {}).values():
        yield from _options(inner)


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a module, those within f-strings too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_every_option_that_the_package_names_exists() -> None:
    known = {*_options(get_command(app)), *_OTHERS}
    unknown = [
        f"{path.relative_to(ROOT)}:{line}: {option}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for line, text in _texts(path)
        for option in _OPTION.findall(text)
        if option not in known
    ]
    assert not unknown


def test_every_option_that_a_documented_command_names_exists() -> None:
    known = {*_options(get_command(app)), *_OTHERS}
    unknown = [
        f"{path.name}: {option} in {line.strip()}"
        for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"\s*(torchrun .*-m )?modernbert ", line)
        for option in _OPTION.findall(line.partition("#")[0])
        if option not in known
    ]
    assert not unknown
