"""A small corpus that every machine has: what comes with the Python installation itself.

Code (the sources of the standard library), prose (their docstrings, one document each) and
manual (the topics of `help()`): about 13 MB. The split goes by file, and a docstring goes where
its file goes, so that nothing held out is seen in training.
"""

import ast
import hashlib
import importlib
import json
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modernbert.errors import DocumentError
from modernbert.files import write_whole

HELD_OUT_FRACTION = 0.05

_LEFT_OUT_FOLDERS = frozenset(
    ("site-packages", "dist-packages", "test", "tests", "idle_test", "_bundled", "pydoc_data")
)
# Written for one machine, so that two machines would not get the same corpus.
_LEFT_OUT_PREFIXES = ("_sysconfigdata", "config-", "__pycache__", "lib-dynload")
_TABLE_LINES = 0.6
_QUOTES = ('"""', "'''")
_MIN_DOCSTRING_CHARACTERS = 100


@dataclass(frozen=True)
class CorpusFiles:
    """JSON Lines with the field `text`, and `source`, the file that a document is from."""

    train: tuple[Path, ...]
    held_out: tuple[Path, ...]


@dataclass(frozen=True)
class _Text:
    source: str
    text: str

    @property
    def is_held_out(self) -> bool:
        """By the hash of the source's name: the same on every machine."""
        number = int.from_bytes(hashlib.sha256(self.source.encode()).digest()[:8], "big")
        return number < HELD_OUT_FRACTION * 2**64


def collect_python_corpus(output: Path | str, *, library: Path | None = None) -> CorpusFiles:
    """Write the corpus into a folder; the same Python version gives the same bytes.

    Args:
        output: The folder to write to.
        library: The folder of the standard library's sources; by default this Python's own.

    Raises:
        DocumentError: This Python came without any sources and topics.
    """
    output = Path(output)
    library = library or Path(sysconfig.get_path("stdlib"))
    texts = [*_library_texts(library), *_topics()]
    held_out = [text for text in texts if text.is_held_out]
    train = [text for text in texts if not text.is_held_out]
    if not (train and held_out):
        raise DocumentError(
            f"{library}: this Python installation lacks its sources; use your own corpus"
        )
    output.mkdir(parents=True, exist_ok=True)
    # A text that two files share could be in both parts: it is held out, and nowhere else.
    seen: set[str] = set()
    held_out_file = _write(output / "held-out.jsonl", held_out, seen)
    train_file = _write(output / "train.jsonl", train, seen)
    return CorpusFiles(train=(train_file,), held_out=(held_out_file,))


def _write(path: Path, texts: list[_Text], seen: set[str]) -> Path:
    lines = []
    for text in texts:
        if text.text not in seen:
            seen.add(text.text)
            record = {"text": text.text, "source": text.source}
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write_whole(path, "".join(lines).encode())
    return path


def _library_texts(library: Path) -> Iterator[_Text]:
    """Each source file, followed by its docstrings."""
    for path in _source_files(library):
        source = path.relative_to(library).as_posix()
        code = _read(path)
        if code.strip() and not _is_table(code):
            yield _Text(source, code)
            for docstring in _docstrings(code):
                yield _Text(source, docstring)


def _source_files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name in _LEFT_OUT_FOLDERS or path.name.startswith(_LEFT_OUT_PREFIXES):
            continue
        if path.is_dir():
            yield from _source_files(path)
        elif path.suffix == ".py":
            yield path


def _read(path: Path) -> str:
    """The source in the encoding that it declares; empty when it cannot be read."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ""


def _is_table(code: str) -> bool:
    """Whether nearly all lines are entries of a table, as in the maps of character sets."""
    lines = [line.lstrip() for line in code.splitlines() if line and not line.isspace()]
    entries = sum(line[0] in "'\"0123456789(" and not line.startswith(_QUOTES) for line in lines)
    return entries > _TABLE_LINES * len(lines)


def _docstrings(code: str) -> Iterator[str]:
    """The longer docstrings of the module, its classes and its functions, without indentation."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring and len(docstring) >= _MIN_DOCSTRING_CHARACTERS:
                yield docstring


def _topics() -> Iterator[_Text]:
    """The manual's topics that `help()` shows, where this Python has them."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except (ImportError, AttributeError):
        return
    for name, text in sorted(topics.items()):
        yield _Text(f"topic {name}", text)
