"""The recipes of the package by their names."""

from pathlib import Path

import pytest
from tests.cli.conftest import Run

from modernbert.cli.recipe import RECIPES, find_recipe
from modernbert.errors import SettingsError


def test_all_are_listed_with_a_purpose(run: Run) -> None:
    lines = run("recipe", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in RECIPES.glob("*"))
    assert all(len(line) <= 110 and len(line.split()) > 4 for line in lines)
    assert "base       ModernBERT-base as the paper trained it (arXiv 2412.13663, " in lines[0]


def test_one_is_shown_and_copied(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (RECIPES / "start.toml").read_text()
    assert run("recipe", "show", "start").stdout == text
    monkeypatch.chdir(tmp_path)
    assert run("recipe", "copy", "start").stdout == "start.toml\n"
    assert Path("start.toml").read_text() == text
    again = run("recipe", "copy", "start")
    assert (again.exit_code, "already exists" in again.stderr) == (2, True)
    assert run("recipe", "copy", "mini", "mine.toml").stdout == "mine.toml\n"


def test_a_name_that_is_none_of_them(run: Run) -> None:
    for verb in (("recipe", "show"), ("pretrain",), ("plan",)):
        answer = run(*verb, "huge")
        assert answer.exit_code == 2
        assert "base, continue, domain, large, mini, rehearsal, start" in answer.stderr


def test_a_file_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe(Path("base")) == RECIPES / "base.toml"
    Path("base").write_text("")
    assert find_recipe(Path("base")) == Path("base")
    assert find_recipe(Path("other/base")) == Path("other/base")  # told of as missing when read
    with pytest.raises(SettingsError, match="no recipe of this name"):
        find_recipe(Path("bas"))
