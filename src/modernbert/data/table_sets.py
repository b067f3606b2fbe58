"""Labelled data in columns: Parquet, Arrow, and data sets of the `datasets` library.

Class labels, which `datasets` stores as numbers beside a list of names, get their names.
"""

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from modernbert.data.corpus_files import find_files
from modernbert.data.table import Table
from modernbert.errors import DocumentError


def read_folder(folder: Path, split: str | None) -> Table:
    """A data set as `save_to_disk` has it: one split, or a folder for each.

    Raises:
        DocumentError: another kind of folder, or a split that is not there.
    """
    splits = sorted(each.name for each in folder.iterdir() if (each / "state.json").is_file())
    if split is None and len(splits) == 1:
        split = splits[0]
    if splits and split not in splits:
        raise _several(str(folder), split, splits)
    chosen = folder / split if splits and split else folder
    if not (chosen / "state.json").is_file():
        raise DocumentError(
            f"{folder}: not a data set that `datasets` has saved; name one file of it"
        )
    return read_columns(str(chosen), [Path(file.path) for file in find_files([chosen])])


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
    splits = sorted(loaded)
    chosen = splits[0] if split is None and len(splits) == 1 else split
    if chosen not in splits:
        raise _several(name, split, splits)
    data = loaded[chosen]
    return _from_arrow(f"{name}:{chosen}", data.with_format("arrow")[:], data.features.to_dict())


def _several(name: str, split: str | None, splits: Sequence[str]) -> DocumentError:
    got = "names no split" if split is None else f"has no split {split!r}"
    return DocumentError(f"{name}: {got}; say which, such as {name}:{splits[0]}; it has {splits}")


def may_be_hub_id(name: str) -> bool:
    """Whether a name that is no path here reads as a data set's."""
    parts = name.split("/")
    return 1 <= len(parts) <= 3 and all(part and part[0] not in ".~" for part in parts)


def read_columns(source: str, paths: Sequence[Path]) -> Table:
    """The rows of Parquet and Arrow files, one after the other.

    Raises:
        DocumentError: one of them cannot be read.
    """
    pyarrow: Any = import_module("pyarrow")
    try:
        tables = [_arrow_table(path) for path in paths]
        joined = pyarrow.concat_tables(tables)
    except (pyarrow.ArrowException, OSError) as error:
        raise DocumentError(f"{source}: cannot be read: {error}") from None
    return _from_arrow(source, joined, _features(joined.schema.metadata))


def _arrow_table(path: Path) -> Any:
    if path.suffix.lower() == ".parquet":
        return import_module("pyarrow.parquet").read_table(path)
    ipc: Any = import_module("pyarrow.ipc")
    content = path.read_bytes()
    opened = ipc.open_file if content.startswith(b"ARROW1") else ipc.open_stream
    return opened(content).read_all()


def _features(metadata: Mapping[bytes, bytes] | None) -> Mapping[str, Any]:
    """What `datasets` has noted of its columns; nothing when another program wrote the file."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _from_arrow(source: str, table: Any, features: Mapping[str, Any]) -> Table:
    columns = {
        name: _named(values.to_pylist(), _class_names(features.get(name)))
        for name, values in zip(table.column_names, table.columns, strict=True)
    }
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    return Table(source=source, columns=tuple(columns), rows=rows)


def _class_names(feature: Any) -> Sequence[str] | None:
    """The names of a column of class labels, or of lists of them."""
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    while isinstance(feature, dict) and "feature" in feature:
        feature = feature["feature"]
    is_label = isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    return feature["names"] if is_label else None


def _named(values: list[Any], names: Sequence[str] | None) -> list[Any]:
    return values if names is None else [_name(value, names) for value in values]


def _name(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_name(each, names) for each in value]
    # -1 stands for a label that is not told.
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None
