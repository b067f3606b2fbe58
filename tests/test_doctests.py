"""The examples in docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import modernbert

MODULES = [
    module.name
    for module in pkgutil.walk_packages(modernbert.__path__, "modernbert.")
    # What has no identifier for a name is a library of C kernels, which Python takes for a module.
    if not module.name.endswith("__main__") and module.name.rpartition(".")[2].isidentifier()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name: str) -> None:
    # Triton comes with torch's builds for GPUs.
    if name.startswith(("modernbert.model.gpu.", "modernbert.training.fused_update")):
        pytest.importorskip("triton")
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [
        example
        for name in ("modernbert.batch", "modernbert.data.shards")
        for example in finder.find(importlib.import_module(name))
    ]
    assert examples
