"""The lock file agrees with the constraints and with what the package needs."""

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LINE = re.compile(r"([\w.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}")


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    """Versions by name."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    found = [LINE.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(found), "each line pins one package by version and hash"
    return {canonicalize_name(each[1]): each[2] for each in found if each}


def test_the_constraints_are_locked(locked: dict[str, str]) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    bench = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]["bench"]
    peers = {canonicalize_name(Requirement(each).name) for each in bench}
    for pin in pins:
        name = canonicalize_name(pin.name)
        assert name in locked or name in peers, f"{name}: is not in requirements.lock"
        assert name not in locked or pin.specifier.contains(locked[name]), name


def test_everything_that_is_needed_is_locked(locked: dict[str, str]) -> None:
    """All requirements of the package and, in turn, of what it requires."""
    installed = {canonicalize_name(each.metadata["Name"]): each for each in distributions()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    waiting = [*project["dependencies"], *extras["dev"]]
    tested = ["train", "serve", "export", "gguf", "ray", "evaluate", "datasets", "faiss", "search"]
    waiting += [each for name in tested for each in extras[name]]
    seen: set[str] = set()
    while waiting:
        wanted = Requirement(waiting.pop())
        name = canonicalize_name(wanted.name)
        if name in seen or name == "modernbert":
            continue
        seen.add(name)
        assert name in locked, f"{name}: is needed, but is not in requirements.lock"
        found = installed.get(name)
        needed = (found.requires or []) if found else []
        marked = [(each, Requirement(each).marker) for each in needed]
        waiting += [
            each for each, marker in marked if marker is None or marker.evaluate({"extra": ""})
        ]
