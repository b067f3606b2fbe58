"""Builds the site of the documents: `python -m docs.site`, or `make docs`.

The pages come from docs/ and, under other names, from a few documents beside it (`PAGES`). What the
code says itself is generated: the reference of the command line and of Python, and the pages of
the tutorials. All of it is put into build/pages with links that work there, and Zensical makes the
site of it in build/site; mkdocs.yml has the navigation. A warning, such as a link or an anchor that
leads nowhere, is an error.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from os.path import relpath
from pathlib import Path, PurePosixPath

from docs import assistant, commands, python_reference, tutorial_pages

ROOT = Path(__file__).resolve().parents[1]
STAGE = ROOT / "build" / "pages"

# Documents that do not stand in docs/, by their pages.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks/index.md",
}
# What a document names in the repository, and the page that is made from it.
MADE_FROM = {
    "docs/commands.py": "reference/commands/index.md",
    "docs/decisions": "decisions/README.md",
    "docs/python_reference.py": "reference/python/using.md",
    "docs/tutorials": "tutorials/index.md",
    "llms.txt": "llms.txt",
    **{f"docs/tutorials/{name}.py": f"tutorials/{name}.md" for name in tutorial_pages.NAMES},
}
_WIDE = "---\nhide: [navigation, toc]\n---\n"  # two blocks of code need the whole width
SHOWN = (".md", ".svg", ".png", ".css")
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]*)(#[^)\s]*)?(?=\))|(?<=src=\")([^\":]+)(?=\")")
FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)


def sources() -> dict[str, str]:
    """Each file that becomes a part of the site, with its place there, both as paths."""
    files = [path for path in sorted((ROOT / "docs").rglob("*")) if path.suffix in SHOWN]
    found = {_name(path): str(path.relative_to(ROOT / "docs")) for path in files}
    found |= {name: place for name, place in PAGES.items() if (ROOT / name).exists()}
    pictures = sorted((ROOT / "benchmarks" / "results").rglob("*.png"))
    return found | {_name(path): _name(path) for path in pictures}


def generated() -> Iterator[tuple[str, str]]:
    """The places and texts of the pages that the code writes."""
    yield "reference/commands/index.md", commands.overview()
    for verb in commands.verbs():
        yield f"reference/commands/{verb.page}", commands.page(verb)
    for name, text in python_reference.pages():
        yield f"reference/python/{name}", text
    yield "tutorials/index.md", tutorial_pages.overview()
    for name in tutorial_pages.NAMES:
        yield f"tutorials/{name}.md", tutorial_pages.page(name)
        yield f"tutorials/{name}.py", (tutorial_pages.FOLDER / f"{name}.py").read_text("utf-8")
        yield f"tutorials/{name}.ipynb", tutorial_pages.notebook(name)
    yield "llms.txt", assistant.text()


def relinked(text: str, source: str, places: dict[str, str]) -> str:
    """A document with links to pages of the site, or to the repository for other files."""
    folder = PurePosixPath(places[source]).parent

    def link(found: re.Match[str]) -> str:
        target, anchor = found[1] or found[3], found[2] or ""
        path = (ROOT / source).parent.joinpath(target).resolve() if target else ROOT / source
        place = places.get(_name(path)) or MADE_FROM.get(_name(path))
        if place is not None:
            return relpath(place, folder) + anchor
        return f"{_repository()}/{'tree' if path.is_dir() else 'blob'}/main/{_name(path)}{anchor}"

    parts = FENCE.split(text)
    parts[::2] = [LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts)


def _repository() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project.get("urls", {}).get("Repository", "https://example.org"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def stage(folder: Path = STAGE) -> None:
    """Write all pages into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    places = sources()
    for source, place in places.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".md":
            text = (ROOT / source).read_text(encoding="utf-8")
            wide = _WIDE if place.startswith("coming-from/") and "grid" in text else ""
            target.write_text(wide + relinked(text, source, places), encoding="utf-8")
        else:
            shutil.copyfile(ROOT / source, target)
    for place, text in generated():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def main() -> int:
    """Write the pages, and build the site of them."""
    stage()
    arguments = ["build", "--strict", "--config-file", str(ROOT / "mkdocs.yml")]
    return subprocess.run([sys.executable, "-m", "zensical", *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
