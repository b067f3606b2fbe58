"""Objects that a Python user has at hand, as tables equal to those of files."""

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow
import pytest

from modernbert.data.rows.tables import read_table
from modernbert.errors import DocumentError

pandas = pytest.importorskip("pandas")
COLUMNS = {"text": ["a", "b"], "label": [1, 0]}
ROWS = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
Pair = namedtuple("Pair", ["text", "label"])


@dataclass
class Labelled:
    text: str
    label: int


OBJECTS: dict[str, Any] = {
    "columns": COLUMNS,
    "arrays": {name: np.array(values) for name, values in COLUMNS.items()},
    "rows": ROWS,
    "a generator": lambda: (row for row in ROWS),
    "pandas": pandas.DataFrame(COLUMNS),
    "an index with a name": pandas.DataFrame(COLUMNS).set_index("text"),
    "a structured array": np.array([("a", 1), ("b", 0)], dtype=[("text", "U1"), ("label", int)]),
    "named tuples": [Pair("a", 1), Pair("b", 0)],
    "data classes": [Labelled("a", 1), Labelled("b", 0)],
    "pyarrow": pyarrow.table(COLUMNS),
    "pyarrow, in batches": lambda: pyarrow.table(COLUMNS).to_reader(),
    "pyarrow, structures": pyarrow.array(ROWS),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_are_tables(name: str) -> None:
    given = OBJECTS[name]
    table = read_table(given() if callable(given) else given)
    assert list(table.rows) == ROWS
    assert table.columns == ("text", "label")


def test_data_sets_have_names_for_their_labels() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"])
    )
    data = datasets.Dataset.from_dict(COLUMNS, features=features)
    assert read_table(data).values("label") == ["yes", "no"]
    assert read_table(data.to_iterable_dataset()).values("label") == ["yes", "no"]
    changed = data.with_transform(lambda rows: {**rows, "text": ["x"] * len(rows["text"])})
    assert read_table(changed).values("text") == ["x", "x"]
    with pytest.raises(DocumentError, match="has the splits 'train'; pass one of them"):
        read_table(datasets.DatasetDict(train=data))


def test_what_pandas_calls_missing_is_nothing() -> None:
    frame = pandas.DataFrame({"text": ["a", None, float("nan"), pandas.NA]})
    assert read_table(frame).values("text") == ["a", None, None, None]


def test_lists_that_pandas_reads_from_parquet_as_arrays() -> None:
    answers = {"text": np.array(["x"], dtype=object), "answer_start": np.array([0])}
    frame = pandas.DataFrame(
        {"tokens": [np.array(["a", "b"]), np.array(["c"])], "answers": [answers, None]}
    )
    table = read_table(frame)
    assert table.values("tokens") == [["a", "b"], ["c"]]
    assert table.values("answers") == [{"text": ["x"], "answer_start": [0]}, None]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "expected a path, a data frame, a data set or dictionaries"),
        ({"text": ["a"], "label": [1, 2]}, "its columns differ in length: 'text' 1, 'label' 2"),
        ({"text": "a"}, "expected a list of values for each column"),
        (["a"], "row 1: got 'a', expected a dictionary"),
        (pandas.DataFrame({"text": ["a"]}).groupby("text"), r"^the DataFrameGroupBy, row 1: .*$"),
        (pandas.DataFrame([["a", "b"]], columns=["text", "text"]), "2 columns are named 'text'"),
        (pyarrow.table([["a"], ["b"]], names=["text", "text"]), "2 columns are named 'text'"),
        ([], "has no rows"),
    ],
)
def test_what_is_no_table(given: Any, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read_table(given)
