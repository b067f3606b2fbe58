"""Rows of objects of Python, such as frames, and of data sets of the `datasets` library."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any

from modernbert.data.rows.cells import is_missing, of_library, plain, shown
from modernbert.data.rows.column_files import class_names, named_values, names_of_features
from modernbert.data.rows.table import Table
from modernbert.errors import DocumentError
from modernbert.extras import import_extra

_HUB_SECONDS = 5.0


def table_of_object(source: Any) -> Table:
    """Return the rows of a frame, a table, a data set, a dictionary of columns, or of dictionaries.

    Raises:
        DocumentError: It is nothing of the kind, or its columns differ in length.
    """
    if isinstance(source, Table):
        return source
    name = f"the {type(source).__name__}"
    if hasattr(source, "features") and hasattr(source, "with_format"):
        return table_of_data_set(source, name)
    if is_frame(source):
        frame = _computed(source, name)
        _require_different(map(str, frame.columns), name)
        return _of_columns({str(column): _cells(frame[column]) for column in frame.columns}, name)
    if hasattr(source, "__arrow_c_stream__") or hasattr(source, "to_pydict"):
        return _of_arrow(source, name)
    if names := getattr(getattr(source, "dtype", None), "names", None):  # a structured array
        return _of_columns({each: _cells(source[each]) for each in names}, name)
    if isinstance(source, Mapping):
        return _of_mapping(source, name)
    if isinstance(source, Iterable) and not isinstance(source, str | bytes):
        return _of_rows(source, name)
    raise DocumentError(
        f"{name}: got {shown(source)}, expected a path, a data frame, a data set or dictionaries"
    )


def is_frame(value: object) -> bool:
    """Return whether an object is a data frame of pandas or polars."""
    library, name = type(value).__module__.partition(".")[0], type(value).__name__
    return library in ("pandas", "polars") and (name == "LazyFrame" or hasattr(value, "columns"))


def table_of_data_set(source: Any, name: str) -> Table:
    """Return the rows of a `datasets.Dataset`, labels by their names."""
    labels = names_of_features(source.features.to_dict() if source.features else {})
    # One that is streamed, or whose rows are computed when they are asked for.
    if not hasattr(source, "num_rows") or source.format["type"] == "custom":
        return _of_rows(
            ({key: named_values([row[key]], labels.get(key))[0] for key in row} for row in source),
            name,
        )
    columns = source.with_format("arrow")[:].to_pydict()
    return _of_columns({key: named_values(columns[key], labels.get(key)) for key in columns}, name)


def _computed(source: Any, name: str) -> Any:
    """A frame with its values; an index that has a name is a column like others."""
    if type(source).__name__ == "LazyFrame":
        try:
            return source.collect()
        except Exception as error:  # the errors of polars share no base class
            reason = str(error).partition("\n")[0]
            raise DocumentError(f"{name}: cannot be computed: {reason}") from None
    names = getattr(getattr(source, "index", None), "names", [None])
    is_column = all(each is not None and each not in source.columns for each in names)
    return source.reset_index() if is_column else source


def _of_arrow(source: Any, name: str) -> Table:
    """The rows of what gives columns of Arrow, such as a table or a relation of DuckDB."""
    if not hasattr(source, "columns") and not hasattr(source, "schema"):
        return _of_rows(source, name)  # an array
    table = source if hasattr(source, "to_pydict") else import_extra("pyarrow").table(source)
    _require_different(table.schema.names, name)
    labels = class_names(table.schema.metadata)
    columns = table.to_pydict()
    return _of_columns({key: named_values(columns[key], labels.get(key)) for key in columns}, name)


def _require_different(columns: Iterable[str], name: str) -> None:
    for column, count in Counter(columns).items():
        if count > 1:
            raise DocumentError(f"{name}: {count} columns are named {column!r}; rename them")


def _of_mapping(source: Mapping[Any, Any], name: str) -> Table:
    """A dictionary of columns; one of splits is refused."""
    if any(hasattr(each, "features") for each in source.values()):
        splits = ", ".join(map(repr, source))
        raise DocumentError(f"{name}: has the splits {splits}; pass one of them")
    if any(isinstance(each, str) or not isinstance(each, Iterable) for each in source.values()):
        raise DocumentError(f"{name}: expected a list of values for each column")
    return _of_columns({str(key): _cells(each) for key, each in source.items()}, name)


def _of_columns(columns: Mapping[str, list[Any]], name: str) -> Table:
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        told = ", ".join(f"{key!r} {len(values)}" for key, values in columns.items())
        raise DocumentError(f"{name}: its columns differ in length: {told}")
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    return Table(source=name, columns=tuple(columns), rows=rows)


def _of_rows(source: Iterable[Any], name: str) -> Table:
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(map(_as_mapping, source), start=1):
        if not isinstance(row, Mapping):
            raise DocumentError(
                f"{name}, row {number}: got {shown(row)}, expected a dictionary such as "
                '{"text": ..., "label": ...}'
            )
        rows.append({str(key): _cell(value) for key, value in row.items()})
    columns = tuple(dict.fromkeys(key for row in rows for key in row))
    return Table(source=name, columns=columns, rows=rows)


def _as_mapping(row: Any) -> Any:
    """A row as a dictionary, where it is a named tuple, a data class or a structure of Arrow."""
    if is_dataclass(row):
        return {each.name: getattr(row, each.name) for each in fields(row)}
    return row._asdict() if hasattr(row, "_asdict") else of_library(row)


def _cells(column: Any) -> list[Any]:
    """The values of a column: a list, or a series or an array of another library."""
    return [_cell(value) for value in of_library(column)]


def _cell(value: Any) -> Any:
    """A value as Python has it; NaN and what pandas calls NA are nothing."""
    if isinstance(value, str):
        return value
    value = plain(of_library(value))
    if isinstance(value, list | tuple):
        return type(value)(map(_cell, value)) if type(value) in (list, tuple) else value
    if isinstance(value, dict):
        return {key: _cell(each) for key, each in value.items()}
    is_nothing = type(value).__name__ in ("NAType", "NaTType") or (
        value != "" and is_missing(value)
    )
    return None if is_nothing else value


def read_hub(name: str, split: str | None) -> Table:
    """Read a data set on the hub: `name`, `owner/name` or `owner/name/config`, and `@revision`.

    Raises:
        DocumentError: `datasets` is not installed, or cannot get it; or no split is meant.
    """
    try:
        datasets: Any = import_module("datasets")
    except ImportError:
        raise DocumentError(
            f"{name}: no such file; to load a dataset from the hub, run "
            "`pip install 'modernbert[datasets]'`"
        ) from None
    hub_id, _, revision = name.partition("@")
    owner, *rest = hub_id.split("/", 2)
    arguments = [f"{owner}/{rest[0]}", rest[1]] if len(rest) == 2 else [hub_id]
    try:
        with _reached_or_cached(arguments[0]) as unreachable:
            loaded = datasets.load_dataset(*arguments, revision=revision or None)
    except Exception as error:  # the errors of `datasets` share no base class
        reason = (str(unreachable or error) or type(error).__name__).splitlines()[0]
        raise DocumentError(
            f"{name}: no such file, and no such dataset could be loaded: {reason}"
        ) from None
    chosen = chosen_split(name, split, sorted(loaded))
    return table_of_data_set(loaded[chosen], f"{name}:{chosen}")


@contextmanager
def _reached_or_cached(hub_id: str) -> Iterator[Exception | None]:
    """Ask the hub once for a data set; where that fails, let `datasets` use its cache alone.

    `datasets` itself would try again and again, for half a minute. Yields why the hub did not
    answer, or None.
    """
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    config: Any = import_module("datasets").config
    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    failure: Exception | None = None
    try:
        huggingface_hub.HfApi().dataset_info(hub_id, timeout=_HUB_SECONDS)
    except Exception as error:  # the client's errors of connections share no base class
        if isinstance(error, RepositoryNotFoundError) or not isinstance(error, HfHubHTTPError):
            failure = error
            constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
    try:
        yield failure
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before


def chosen_split(name: str, split: str | None, splits: Sequence[str]) -> str:
    """Return the split that is asked for, or the only one.

    Raises:
        DocumentError: There is no such split, or several and none is asked for.
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
    """Return whether a name that is no path here reads as a data set's."""
    parts = name.split("/")
    return 1 <= len(parts) <= 3 and all(part and part[0] not in ".~" for part in parts)
