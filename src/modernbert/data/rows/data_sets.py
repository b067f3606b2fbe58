"""Data sets of the `datasets` library: their splits, and those of the hub."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from modernbert.data.rows.python_objects import table_of_data_set
from modernbert.data.rows.table import Table
from modernbert.errors import DocumentError


def read_hub(name: str, split: str | None) -> Table:
    """A data set of the hub: `name`, `owner/name` or `owner/name/config`.

    Raises:
        DocumentError: `datasets` is not installed, or cannot get it; or no split is meant.
    """
    try:
        datasets: Any = import_module("datasets")
    except ImportError:
        raise DocumentError(
            f"{name}: no such file; to read a data set of the hub install "
            "`pip install 'modernbert[datasets]'`"
        ) from None
    owner, _, config = name.partition("/")[2].partition("/")
    arguments = [f"{name.split('/')[0]}/{owner}", config] if config else [name]
    try:
        loaded = datasets.load_dataset(*arguments)
    except Exception as error:  # the errors of `datasets` share no base class
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DocumentError(f"{name}: no such file, and no data set to be had: {reason}") from None
    chosen = chosen_split(name, split, sorted(loaded))
    return table_of_data_set(loaded[chosen], f"{name}:{chosen}")


def chosen_split(name: str, split: str | None, splits: Sequence[str]) -> str:
    """The split that is asked for, or the only one.

    Raises:
        DocumentError: there is no such split, or several and none is asked for.
    """
    if split is None and len(splits) == 1:
        return splits[0]
    if split in splits:
        return str(split)
    got = "names no split" if split is None else f"has no split {split!r}"
    raise DocumentError(
        f"{name}: {got}; say which, such as {name}:{splits[0]}; it has {list(splits)}"
    )


def may_be_hub_id(name: str) -> bool:
    """Whether a name that is no path here reads as a data set's."""
    parts = name.split("/")
    return 1 <= len(parts) <= 3 and all(part and part[0] not in ".~" for part in parts)
