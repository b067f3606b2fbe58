"""Claim: what inference and serving need beside torch takes less than 150 MB on the disk.

    python tests/installed_bytes.py      # in the environment that is to be measured

Prints the bytes of each installed package but torch, what torch needs, and pip and setuptools. It
imports nothing else, so that it also runs in an environment without this repository.
"""

import json
import re
from importlib.metadata import Distribution, distributions
from pathlib import Path

_NOT_COUNTED = {"pip", "setuptools"}


def installed_bytes() -> dict[str, int]:
    """The size of each package that torch does not need, the largest first."""
    found = {_normal(each.metadata["Name"]): each for each in distributions()}
    of_torch = _needed("torch", found)
    sizes = {
        name: _bytes(each)
        for name, each in found.items()
        if name not in of_torch and name not in _NOT_COUNTED
    }
    return dict(sorted(sizes.items(), key=lambda each: -each[1]))


def _needed(package: str, found: dict[str, Distribution]) -> set[str]:
    """A package and, in turn, what it requires."""
    needed, waiting = set[str](), [package]
    while waiting:
        name = _normal(waiting.pop())
        if name in found and name not in needed:
            needed.add(name)
            wanted = [each for each in found[name].requires or [] if "extra ==" not in each]
            waiting += [re.split(r"[^\w.-]", each)[0] for each in wanted]
    return needed


def _bytes(package: Distribution) -> int:
    paths = [Path(str(package.locate_file(each))) for each in package.files or []]
    return sum(path.stat().st_size for path in paths if path.exists())


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    print(json.dumps(installed_bytes(), indent=1))
