"""The site of the documents: it builds without a warning, and every page can be reached."""

import re
import subprocess
import sys
from pathlib import Path

import griffe
import pytest
import yaml

import modernbert
from benchmarks import results
from docs import commands, python_reference, settings_reference, site, speed_picture

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all pages."""
    folder = tmp_path_factory.mktemp("site") / "pages"
    site.stage(folder)
    return folder


def in_navigation() -> set[str]:
    """The pages that mkdocs.yml names."""
    return set(re.findall(r"[\w/-]+\.md", yaml.safe_dump(_configuration()["nav"], width=1000)))


def _configuration() -> dict[str, object]:
    loaded = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_every_page_is_in_the_navigation(pages: Path) -> None:
    """Or on an index page: those of verbs and of decisions."""
    made = {path.relative_to(pages).as_posix() for path in pages.rglob("*.md")}
    listed = ("reference/commands/", "decisions/")
    assert in_navigation() <= made
    assert {page for page in made - in_navigation() if not page.startswith(listed)} == set()


def test_every_public_name_is_in_the_reference() -> None:
    on_pages = [name for page in python_reference.PAGES for name in python_reference.names_of(page)]
    assert sorted(on_pages) == sorted({*modernbert.__all__} - {"__version__", "ModernBertError"})


def test_every_option_is_in_the_reference(pages: Path) -> None:
    for verb in commands.verbs():
        text = (pages / "reference" / "commands" / verb.page).read_text(encoding="utf-8")
        assert [flag for flag in verb.flags if f"{flag}" not in text] == []


def test_links_lead_to_pages_or_to_the_repository() -> None:
    places = {"docs/a.md": "a.md", "docs/d/b.md": "d/b.md", "CONTRIBUTING.md": "contributing.md"}
    text = (
        "[a](../a.md#x) [c](../../CONTRIBUTING.md) [w](https://example.org)\n```\n[a](no.md)\n```\n"
    )
    made = site.relinked(text + "[s](../../src/modernbert)", "docs/d/b.md", places)
    assert "[a](../a.md#x) [c](../contributing.md) [w](https://example.org)" in made
    assert "[a](no.md)" in made and "/tree/main/src/modernbert)" in made


def test_the_site_builds_without_a_warning() -> None:
    """Links, anchors and names of the reference that lead nowhere end the build."""
    built = subprocess.run(
        [sys.executable, "-m", "docs.site"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "No issues found" in built.stdout + built.stderr


def test_fields_of_settings_show_their_types_and_texts() -> None:
    code = 'a: Annotated[int | None, Ge(1), Doc("It " "is.", default="x")] = None\nb: int'
    extensions = griffe.load_extensions(settings_reference.PlainFields)
    module = griffe.visit("m", Path("m.py"), code, extensions=extensions)
    assert str(module["a"].annotation) == "int | None" and str(module["b"].annotation) == "int"
    assert module["a"].docstring.value == "It is." and module["b"].docstring is None


@pytest.mark.parametrize("theme", speed_picture.THEMES)
def test_the_picture_shows_the_results(theme: str) -> None:
    drawn = (speed_picture.FOLDER / f"speed-{theme}.svg").read_text(encoding="utf-8")
    timings = results.read(speed_picture.RESULT)["timings"]
    for name in (name for names in speed_picture.BARS.values() for name in names):
        assert f">{timings[name]['tokens_per_second']:,.0f}<" in drawn


def test_pictures_are_drawn_for_both_themes(tmp_path: Path) -> None:
    speed_picture.main(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speed-dark.svg", "speed-light.svg"]
