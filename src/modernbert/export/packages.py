"""The packages that an export needs, and a plain word where one is missing or too old."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from modernbert.errors import ExportError

# As in the extra `export` of pyproject.toml.
NEEDED = {"onnx": (1, 20), "onnxscript": (0, 7), "onnxruntime": (1, 25)}


def require_packages() -> None:
    """Check all of them before any work is done.

    Raises:
        ExportError: one that is missing or too old.
    """
    for name, least in NEEDED.items():
        wanted = ".".join(map(str, least))
        try:
            found = version(name)
        except PackageNotFoundError:
            raise ExportError(
                f"{name} is not installed: pip install 'modernbert[export]'"
            ) from None
        if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < least:
            raise ExportError(
                f"{name} {found} is too old, {wanted} or later is needed: "
                "pip install -U 'modernbert[export]'"
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the packages' remarks, which are about their own inside, from the user."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
