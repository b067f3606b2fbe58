"""The parts that all model cards share: the header for the hub, lists, and versions."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("modernbert", "torch", "tokenizers", "safetensors", "numpy")


def versions() -> str:
    """Return the last section: Python and the packages that made the model."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # code that is run from its folder is not installed
            continue
    return f"## Versions\n\n{bullets(found)}\n"


def header(*, library: str, pipeline: str) -> str:
    """Return what the hub reads: the library that loads the model, and its purpose."""
    return f"---\nlibrary_name: {library}\npipeline_tag: {pipeline}\ntags:\n- modernbert\n---\n"


def bullets(values: Mapping[str, object]) -> str:
    """Return a list of names and values; only the first 50 of a mapping."""
    return "\n".join(f"- {name}: {_text(value)}" for name, value in values.items())


def _text(value: object) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    shown = [f"{name} ({count:,})" for name, count in list(value.items())[:50]]
    return ", ".join(shown) + (" ..." if len(value) > 50 else "")
