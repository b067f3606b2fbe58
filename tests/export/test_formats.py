"""The table of formats agrees with the functions that write them and with the extras."""

import inspect
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest

from modernbert.errors import ExportError
from modernbert.export.formats import FORMATS

NAMES = sorted(FORMATS)


@pytest.mark.parametrize("name", NAMES)
def test_writers_take_the_settings(name: str) -> None:
    form = FORMATS[name]
    taken = {
        key: each.default
        for key, each in inspect.signature(form.write()).parameters.items()
        if each.kind is each.KEYWORD_ONLY
    }
    settings = form.settings()
    given = {each.name: getattr(settings, each.name) for each in fields(settings)}  # type: ignore[arg-type]
    if form.takes_sample:
        given.pop("text_field")
    assert given.keys() == taken.keys()
    assert all(taken[key] in (value, inspect.Parameter.empty) for key, value in given.items())


def test_the_extras_name_the_same_versions() -> None:
    root = Path(__file__).resolve().parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for form in FORMATS.values():
        if form.extra is not None:
            needed = [f"{n}>={'.'.join(map(str, least))}" for n, least in form.packages.items()]
            assert project["optional-dependencies"][form.extra] == needed


def test_packages_that_are_missing_or_old() -> None:
    onnx = FORMATS["onnx"]
    onnx.require()
    with pytest.raises(
        ExportError, match=r"expected 999.0 or later: pip install -U 'modernbert\[export"
    ):
        replace(onnx, packages={"onnx": (999, 0)}).require()
    with pytest.raises(ExportError, match=r"not installed: pip install 'modernbert\[export\]'"):
        replace(onnx, packages={"no-such-package": (1, 0)}).require()
