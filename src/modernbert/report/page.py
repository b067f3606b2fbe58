"""A web page in one file, its parts, and the parts of a model card, such as what to do next.

The page loads nothing and runs no scripts. Everything that is not `Html` already is escaped, so you
can put any text anywhere.

    page("A run", [section("Totals", facts({"tokens": "1.2B"})), section("Recipe", code(text))])
"""

import html
import platform
import re
import shlex
from collections.abc import Container, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from modernbert.errors import RunError
from modernbert.files import write_whole
from modernbert.kinds import MODELS, ModelKind
from modernbert.report.formats import NumberFormat

_PACKAGES = ("modernbert", "torch", "tokenizers", "safetensors", "numpy")

# What the verbs that use a model are given after its folder; `embed` takes its texts first.
_INPUTS = {
    "fill-mask": "'A text with a [MASK].'",
    "answer": "--context article.txt 'A question?'",
    "rerank": "'A question' 'A text.' 'Another text.'",
}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def markup(value: object) -> Html:
    """Return a value as HTML; everything but `Html` is escaped.

    >>> markup("a < b"), markup(Html("<b>c</b>"))
    ('a &lt; b', '<b>c</b>')
    """
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def join(values: Iterable[object], between: str = "") -> Html:
    return Html(between.join(markup(value) for value in values))


def element(tag: str, *content: object, **attributes: object) -> Html:
    """Make an element; underscores in attribute names become hyphens, a trailing one is dropped.

    >>> element("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for name, value in attributes.items()
    )
    return Html(f"<{tag}{given}>{join(content)}</{tag}>")


def page(title: str, content: Iterable[object], *, subtitle: object = "") -> str:
    """Make a whole document.

    Args:
        title: The title of the page.
        content: The parts of the page.
        subtitle: A small line below the title.
    """
    style = (files("modernbert.report") / "page.css").read_text(encoding="utf-8")
    head = join(
        [
            Html('<meta charset="utf-8">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html('<meta name="color-scheme" content="light dark">'),
            element("title", title),
            Html(f"<style>\n{style}</style>"),
        ],
        "\n",
    )
    header = element(
        "header", element("h1", title), element("p", subtitle) if subtitle else Html("")
    )
    body = element("body", header, element("main", join(content, "\n")))
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n{body}\n</html>\n'


def write_page(path: Path, document: str) -> None:
    """Write a page so that readers see the old or the new page, never a part of one.

    Raises:
        RunError: The page cannot be written.
    """
    try:
        # A text may hold halves of characters that have no UTF-8 form, such as a path's.
        write_whole(path, document.encode("utf-8", errors="replace"))
    except OSError as error:
        raise RunError(f"{path}: could not be written: {error}") from None


def section(heading: str, *content: object, note: object = "") -> Html:
    """Make a part of the page with a heading, and perhaps a line that explains it."""
    explained = [element("p", note, class_="note")] if note else []
    return element("section", element("h2", heading), *explained, *content)


def facts(values: Mapping[str, object]) -> Html:
    """List names with their values, as many in a row as fit; a path is broken after a slash."""
    return element(
        "dl",
        *(
            element("div", element("dt", name), element("dd", _breakable(value)))
            for name, value in values.items()
        ),
        class_="facts",
    )


def _breakable(value: object) -> Html:
    return value if isinstance(value, Html) else join(str(value).split("/"), "/<wbr>")


def grid(items: Iterable[object]) -> Html:
    """Put charts next to each other, or below each other on a narrow screen."""
    return element("div", *items, class_="grid")


def table(
    header: Sequence[object], rows: Iterable[Sequence[object]], *, texts: Container[object] = ()
) -> Html:
    """Make a table; columns whose cells all begin like numbers, or are empty, are aligned right.

    Args:
        header: The names of the columns.
        rows: The cells of each row.
        texts: The names of columns of running text, which are wide and never aligned right. On a
            narrow screen, each cell of a table with such a column is a line of its own.
    """
    body = [list(row) for row in rows]
    kinds = [
        "text" if name in texts else "number" if _is_numeric([row[i] for row in body]) else ""
        for i, name in enumerate(header)
    ]
    top = element("tr", *(_cell("th", cell, k) for cell, k in zip(header, kinds, strict=True)))
    names = [{"data_name": name} if "text" in kinds else {} for name in header]
    columns = list(zip(kinds, names, strict=True))
    lines = [
        element(
            "tr", *(_cell("td", cell, k, **n) for cell, (k, n) in zip(row, columns, strict=True))
        )
        for row in body
    ]
    of_texts = {"class_": "texts"} if "text" in kinds else {}
    inner = element("table", element("thead", top), element("tbody", *lines), **of_texts)
    return element("div", inner, class_="scroll")


def code(text: str) -> Html:
    """Show a text unchanged, such as a recipe."""
    return element("pre", element("code", text))


def commands(lines: Mapping[str, str]) -> Html:
    """List what one can do next, each with its command, which one click selects as a whole."""
    return element(
        "dl",
        *(
            element("div", element("dt", purpose), element("dd", element("code", _words(command))))
            for purpose, command in lines.items()
        ),
        class_="commands",
    )


def _words(command: str) -> Html:
    """A command that is broken between words alone, so that no `--` ends a line."""
    return join((element("span", word) for word in command.split(" ")), " ")


def details(summary: object, *content: object) -> Html:
    """Hide content behind a summary that opens on a click."""
    return element("details", element("summary", summary), *content)


def _cell(tag: str, value: object, kind: str, **attributes: object) -> Html:
    return element(tag, value, **({"class_": kind} if kind else {}), **attributes)


def _is_numeric(cells: Sequence[object]) -> bool:
    texts = [str(cell) for cell in cells]
    return any(texts) and all(re.match(r"[-+.]?\d|$", text) for text in texts)


def bars(header: tuple[str, str], rows: Sequence[tuple[str, float]], format: NumberFormat) -> Html:
    """Show names and values with bars, relative to the greatest value."""
    longest = max((abs(value) for _, value in rows), default=0.0) or 1.0
    lines = [
        element(
            "tr",
            element("td", name),
            element("td", format(value), class_="number"),
            element("td", _bar(abs(value) / longest)),
        )
        for name, value in rows
    ]
    name, figure = header
    names = [element("th", name), element("th", figure, class_="number"), element("th", "")]
    inner = element(
        "table", element("thead", element("tr", *names)), element("tbody", *lines), class_="bars"
    )
    return element("div", inner, class_="scroll")


def matrix(
    names: Sequence[str], counts: Sequence[Sequence[int]], *, rows: str, columns: str
) -> Html:
    """Show a square of counts, such as a confusion matrix; colours show the fraction of each row.

    Args:
        names: The names of the rows and columns.
        counts: The counts, row by row.
        rows: What the rows are.
        columns: What the columns are.
    """
    corner = element("th", f"{rows} ↓ {columns} →")
    top = element("tr", corner, *(element("th", name) for name in names))
    lines = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row) or 1
        cells = (
            element("td", f"{n:,}", style=f"--share:{n / total:.3f}", class_="number") for n in row
        )
        lines.append(element("tr", element("th", name), *cells))
    inner = element("table", element("thead", top), element("tbody", *lines), class_="heat")
    return element("div", inner, class_="scroll")


def _bar(share: float) -> Html:
    return element("span", class_="bar f0", style=f"width:{100 * share:.1f}%")


def versions() -> str:
    """Return the last section: Python and the packages that made the model."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # code that is run from its folder is not installed
            continue
    return f"## Versions\n\n{bullets(found)}\n"


def header(*, library: str, pipeline: str) -> str:
    """Return what the hub reads: the library that loads the model, and its purpose."""
    return f"---\nlibrary_name: {library}\npipeline_tag: {pipeline}\ntags:\n- modernbert\n---\n"


def bullets(values: Mapping[str, object]) -> str:
    """Return a list of names and values; only the first 50 of a mapping."""
    return "\n".join(f"- {name}: {_text(value)}" for name, value in values.items())


def _text(value: object) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    shown = [f"{name} ({count:,})" for name, count in list(value.items())[:50]]
    return ", ".join(shown) + (" ..." if len(value) > 50 else "")


def commands_of(kind: ModelKind, model: Path, *, pairs: bool = False) -> dict[str, str]:
    """Return what can be done with a model, with the command of each.

    >>> list(commands_of("tagger", Path("runs/names/model")))
    ['use it', 'serve it', 'export it']

    Args:
        kind: The kind of the model.
        model: The model's folder, as the user calls it.
        pairs: Whether it takes pairs of texts, which `classify` reads from a file.
    """
    folder = shlex.quote(str(model))
    verb = MODELS[kind].used_by
    inputs = _INPUTS.get(verb, "--input pairs.csv" if pairs else "'A text.'")
    found = {"use it": f"modernbert {verb} {folder} {inputs}"}
    if verb == "embed":
        found = {"use it": f"modernbert embed texts.jsonl {folder} --output texts.index"}
    if kind == "masked_lm":
        found["fine-tune it"] = (
            f"modernbert finetune classify --model {folder} --train train.csv --dev 10%"
        )
    onnx = shlex.quote(str(model.parent / "onnx"))
    return {
        **found,
        "serve it": f"modernbert serve {folder}",
        "export it": f"modernbert export onnx {folder} --output {onnx}",
    }


def go_on(lines: Mapping[str, str]) -> Html:
    """Make the part of a page with these commands; empty without any."""
    note = "One click on a command selects it."
    return section("What next", commands(lines), note=note) if lines else Html("")
