"""Packages that only some uses need: imported late, and named with their command where missing."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from modernbert.errors import MissingPackageError

EXTRAS = {
    "Stemmer": "search",
    "bm25s": "search",
    "faiss": "faiss",
    "matplotlib": "train",
    "mlflow": "mlflow",
    "msgspec": "serve",
    "prometheus_client": "serve",
    "pyarrow": "train",
    "sklearn": "sklearn",
    "starlette": "serve",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "uvicorn": "serve",
    "wandb": "wandb",
    "zstandard": "train",
}
"""The extra of pyproject.toml that brings each package."""


def import_extra(module: str) -> Any:
    """Import a package of an extra, or a part of one such as `pyarrow.parquet`.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = (error.name or module).partition(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingPackageError(missing(package), name=package) from None


def is_installed(package: str) -> bool:
    """Return whether a package is there to be imported."""
    try:
        return find_spec(package) is not None
    except ImportError:
        return False


def missing(package: str) -> str:
    """Return what a person reads who lacks a package.

    >>> missing("pyarrow")
    "pyarrow is not installed; run: pip install 'modernbert[train]'"
    """
    return f"{package} is not installed; run: pip install 'modernbert[{EXTRAS[package]}]'"
