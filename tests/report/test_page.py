"""The page: one file without anything from elsewhere, and no text of a user is markup."""

from pathlib import Path

import pytest
from tests.report.html_tree import parse

from modernbert.errors import RunError
from modernbert.report.page import (
    Html,
    bars,
    code,
    element,
    facts,
    matrix,
    page,
    section,
    table,
    write_page,
)

EVIL = "<script>alert('x')</script>\"&"


def test_nothing_comes_from_elsewhere() -> None:
    root = parse(page("A run", [section("One", facts({"a": 1}))]))
    assert not root.all("script") and not root.all("link") and not root.all("img")
    (style,) = root.all("style")
    assert "url(" not in style.text and "@import" not in style.text
    assert "prefers-color-scheme: dark" in style.text


def test_every_text_is_escaped() -> None:
    parts = [
        section(EVIL, facts({EVIL: EVIL}), note=EVIL),
        table([EVIL], [[EVIL]]),
        code(EVIL),
        element("a", EVIL, title=EVIL),
        bars((EVIL, EVIL), [(EVIL, 1.0)], str),
        matrix([EVIL], [[1]], rows=EVIL, columns=EVIL),
    ]
    root = parse(page(EVIL, parts, subtitle=EVIL))
    assert root.all("script") == []
    assert root.all("a")[0].attributes["title"] == EVIL
    assert root.all("h1")[0].text == EVIL and root.all("pre")[0].text == EVIL


def test_markup_stays() -> None:
    assert element("p", Html("<b>x</b>")) == "<p><b>x</b></p>"


def test_columns_of_numbers_stand_to_the_right() -> None:
    root = parse(table(["name", "n", "mixed"], [["a", "1,234", "3"], ["b", "", "none"]]))
    assert [cell.text for cell in root.all("th", "number")] == ["n"]
    assert [cell.text for cell in root.all("td", "number")] == ["1,234", ""]


def test_a_table_without_rows() -> None:
    assert [cell.text for cell in parse(table(["a", "b"], [])).all("th")] == ["a", "b"]


def test_a_matrix_is_coloured_by_shares_of_rows() -> None:
    root = parse(matrix(["x", "y"], [[3, 1], [0, 0]], rows="true", columns="said"))
    shares = [cell.attributes["style"] for cell in root.all("td")]
    assert shares == ["--share:0.750", "--share:0.250", "--share:0.000", "--share:0.000"]


def test_bars_are_as_long_as_their_values() -> None:
    root = parse(bars(("label", "F1"), [("a", 0.5), ("b", 0.25)], str))
    assert [bar.attributes["style"] for bar in root.all("span")] == ["width:100.0%", "width:50.0%"]


def test_written_whole_and_in_any_characters(tmp_path: Path) -> None:
    write_page(tmp_path / "a.html", page("half of a pair: \ud800", []))
    assert "half of a pair: ?" in (tmp_path / "a.html").read_text(encoding="utf-8")
    with pytest.raises(RunError, match="could not be written"):
        write_page(tmp_path / "missing" / "a.html", "")
