"""Objects that a Python user has at hand, as tables equal to those of files."""

from typing import Any

import numpy as np
import pyarrow
import pytest

from modernbert.data.rows.tables import read_table
from modernbert.errors import DocumentError

pandas = pytest.importorskip("pandas")
COLUMNS = {"text": ["a", "b"], "label": [1, 0]}
ROWS = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
OBJECTS: dict[str, Any] = {
    "columns": COLUMNS,
    "arrays": {name: np.array(values) for name, values in COLUMNS.items()},
    "rows": ROWS,
    "a generator": lambda: (row for row in ROWS),
    "pandas": pandas.DataFrame(COLUMNS),
    "pyarrow": pyarrow.table(COLUMNS),
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
    with pytest.raises(DocumentError, match="has the splits 'train'; pass one of them"):
        read_table(datasets.DatasetDict(train=data))


def test_what_pandas_calls_missing_is_nothing() -> None:
    frame = pandas.DataFrame({"text": ["a", None, float("nan"), pandas.NA]})
    assert read_table(frame).values("text") == ["a", None, None, None]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "expected a path, a data frame, a data set or dictionaries"),
        ({"text": ["a"], "label": [1, 2]}, "its columns differ in length: 'text' 1, 'label' 2"),
        ({"text": "a"}, "expected a list of values for each column"),
        (["a"], "row 1: got 'a', expected a dictionary"),
        ([], "has no rows"),
    ],
)
def test_what_is_no_table(given: Any, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read_table(given)
