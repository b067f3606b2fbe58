"""A table written in any dialect is read back equal, or is refused with the line of its fault."""

import csv
import io
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modernbert.data.rows.dialect import find_dialect, records
from modernbert.errors import DocumentError


def read(text: str, *, is_tab: bool = False, is_whole: bool = True) -> list[list[str]]:
    dialect = find_dialect(text, "a.csv", is_whole=is_whole, is_tab=is_tab)
    return [record.cells for record in records(io.StringIO(text, newline=""), dialect, "a.csv")]


CELLS = st.text(st.sampled_from("ab ,;\t|\"'\\\n\r01é"), max_size=8)
DIALECTS: dict[str, dict[str, Any]] = {
    "doubled": {},
    "all": {"quoting": csv.QUOTE_ALL},
    "backslash": {"doublequote": False, "escapechar": "\\"},
    "backslash, all": {"doublequote": False, "escapechar": "\\", "quoting": csv.QUOTE_ALL},
    "both": {"escapechar": "\\"},
    "escaped": {"escapechar": "\\", "quoting": csv.QUOTE_NONE},
    "single": {"quotechar": "'", "quoting": csv.QUOTE_ALL},
}


@pytest.mark.parametrize("name", DIALECTS)
@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), max_size=5),
    separator=st.sampled_from(",;\t|"),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
@example(rows=[('"', "\\")], separator=",", line_end="\n")
@example(rows=[("C:\\\\new", "x")], separator=",", line_end="\n")
def test_what_a_writer_wrote_is_read_back_or_refused(
    name: str, rows: list[tuple[str, str]], separator: str, line_end: str
) -> None:
    file = io.StringIO(newline="")
    # With \n for line ends Python's writer leaves a lone \r bare, which then ends a line itself.
    bare = "\r" if line_end == "\n" else ""
    table = [["text", "label"], *([cell.replace(bare, "") for cell in row] for row in rows)]
    writer = csv.writer(file, delimiter=separator, lineterminator=line_end, **DIALECTS[name])
    writer.writerows(table)
    try:
        found = read(file.getvalue())
    except DocumentError:
        return
    assert found == table


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), max_size=5),
    separator=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_the_usual_dialects_are_never_refused(
    rows: list[tuple[str, str]], separator: str, quoting: Any
) -> None:
    """Only backslashes leave open how they were meant."""
    table = [["text", "label"], *([a.replace("\\", "/"), b.replace("\\", "/")] for a, b in rows)]
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator, quoting=quoting).writerows(table)
    assert read(file.getvalue()) == table
