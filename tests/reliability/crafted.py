"""Claim: no value in a stranger's JSON ends in a traceback, a hang or more memory than was allowed.

Every JSON file of every kind of folder is written again with one value changed, a key left out or
one added. Each such folder is opened and used in a child with a limit on its memory and time. It
must work or be refused with one of this package's errors.
"""

import contextlib
import io
import json
import os
import resource
import signal
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints
from unittest import mock

import modernbert
from modernbert import json_files
from modernbert.errors import ModernBertError

_MORE_BYTES = 3 << 29
_SECONDS = 60
_DEEP: Any = json.loads("[" * 200 + "]" * 200)
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    5,
    10**6,
    10**30,
    0.5,
    1e308,
    float("nan"),
    "",
    "x",
    "512",
    "../../..",
    "\x1b[2J\x00",
    [],
    ["x"],
    [5],
    [None],
    {},
    {"x": 5},
    {"0": None},
    _DEEP,
)
"""What is put into each place."""

_LARGEST_LIST = 4  # places of a list that are changed
_LARGEST_FILE = 20_000  # of a tokenizer.json the outer places alone are changed


@dataclass
class Outcome:
    """How many folders were crafted, and which of them were not used or refused in time."""

    folders: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)


def crafted_contents(content: Any, values: tuple[Any, ...] = VALUES) -> Iterator[tuple[str, Any]]:
    """The content of a JSON file, changed in one place each.

    Yields:
        What was changed, and all of the content.
    """
    for value in values:
        yield f"all = {_shown(value)}", value
    small = len(json.dumps(content)) <= _LARGEST_FILE
    for place in _places(content, () if small else None):
        name = ".".join(map(str, place))
        for value in values:
            yield f"{name} = {_shown(value)}", _changed(content, place, lambda _, v=value: v)
        yield f"{name} left out", _changed(content, place, None)
    if isinstance(content, dict):
        yield "unknown key", {**content, "no such key": 1}


def _places(content: Any, path: tuple[Any, ...] | None) -> Iterator[tuple[Any, ...]]:
    """The paths to all values; to those of the outermost level alone where `path` is None."""
    items: list[tuple[Any, Any]] = []
    if isinstance(content, dict):
        items = list(content.items())[:60]
    elif isinstance(content, list):
        items = list(enumerate(content))[:_LARGEST_LIST]
    for key, value in items:
        yield (*(path or ()), key)
        if path is not None:
            yield from _places(value, (*path, key))


def _changed(content: Any, place: tuple[Any, ...], change: Callable[[Any], Any] | None) -> Any:
    copied = json.loads(json.dumps(content))
    holder = copied
    for key in place[:-1]:
        holder = holder[key]
    if change is None:
        del holder[place[-1]]
    else:
        holder[place[-1]] = change(holder[place[-1]])
    return copied


class _Asked(dict[str, Any]):
    """An object of a JSON file that notes which of its keys are asked for."""

    def __init__(self, content: Mapping[str, Any], path: tuple[Any, ...], notes: set[Any]) -> None:
        super().__init__({key: _asked(each, (*path, key), notes) for key, each in content.items()})
        self.note = lambda key: notes.add((*path, key))

    def get(self, key: str, default: Any = None) -> Any:
        self.note(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.note(key)
        return super().__getitem__(key)


def _asked(value: Any, path: tuple[Any, ...], notes: set[Any]) -> Any:
    if isinstance(value, dict):
        return _Asked(value, path, notes)
    if isinstance(value, list):
        return [_asked(each, (*path, at), notes) for at, each in enumerate(value)]
    return value


@contextlib.contextmanager
def noting_keys(notes: dict[str, set[tuple[Any, ...]]]) -> Iterator[None]:
    """Note the keys that the readers of JSON files know, whether these hold them or not.

    Args:
        notes: The paths of keys by the name of the file, to be added to.
    """
    read, parse = json_files.read_json, json_files.parse

    def noting_read(path: Path, *more: Any) -> Any:
        return _asked(read(path, *more), (), notes.setdefault(path.name, set()))

    def noting_parse(settings_class: Any, mapping: Any, *, where: str) -> Any:
        kinds = get_type_hints(settings_class)
        known = {(key,) for key, kind in kinds.items() if kind in (int, float, int | None)}
        notes.setdefault(Path(where).name, set()).update(known)
        return parse(settings_class, mapping, where=where)

    reader = mock.patch.object(json_files, "read_json", noting_read)
    with reader, mock.patch.object(json_files, "parse", noting_parse):
        yield


def number_places(content: Any, known: Collection[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The paths to all numbers of a file, and to the keys that are known and not numbers' by type.

    Args:
        content: Of the file.
        known: Paths of keys that its readers ask for.
    """
    found = {place for place in _places(content, ()) if _is_number(_at(content, place))}
    for place in known:
        with contextlib.suppress(KeyError, IndexError, TypeError):
            if isinstance(_at(content, place[:-1]), dict):
                value = _at(content, place[:-1]).get(place[-1])
                found |= {place} if value is None or _is_number(value) else set()
    return sorted(found, key=repr)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _at(content: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        content = content[key]
    return content


def with_number(content: Any, place: tuple[Any, ...], number: float) -> Any:
    """The content of a file with one number put in."""
    copied = json.loads(json.dumps(content))
    _at(copied, place[:-1])[place[-1]] = number
    return copied


def _shown(value: Any) -> str:
    return json.dumps(value)[:20]


def use(folder: Path) -> None:
    """Open a folder as what it is, and compute something with it.

    Raises:
        ModernBertError: It is refused.
    """
    opened = modernbert.load(folder, precision="float32")
    name = type(opened).__name__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _USES[name](opened)


def _search(index: Any) -> None:
    import numpy as np

    query = np.ones((1, index.manifest.dim), np.float32)
    index.search([query] if index.manifest.is_ragged else query, 3)


_USES: Mapping[str, Callable[[Any], Any]] = {
    "FillMask": lambda one: one("The [MASK] of number 5."),
    "Embedder": lambda one: (one.encode_query("The root"), one.encode(["The root"] * 3)),
    "MultiVectorEmbedder": lambda one: one.encode_query("The root"),
    "SparseEmbedder": lambda one: one.encode(["The root"]),
    "Classifier": lambda one: one(["The root"]),
    "Reranker": lambda one: one.rank("The root", ["The square"]),
    "Tagger": lambda one: one(["The root of 5"]),
    "QuestionAnswerer": lambda one: one("What?", "The root of 5"),
    "Tokenizer": lambda one: one.encode_batch(["The root of 5"]),
    "Index": _search,
    "ShardFolder": lambda one: one.verify(),
}


def try_folder(folder: Path, what: str, outcome: Outcome) -> None:
    """Use one folder here; count how that ended."""
    outcome.folders += 1
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            use(folder)
    except ModernBertError as error:
        outcome.refused += 1
        if "\n" in str(error).strip() and len(str(error)) > 2000:
            outcome.faults.append(f"{what}: a message of {len(str(error))} letters")
    except BaseException as error:  # a PanicException is no Exception
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        outcome.faults.append(f"{what}: {type(error).__name__} at {place}: {str(error)[:200]}")


def try_file(folder: Path, name: str, values: tuple[Any, ...] = VALUES) -> Outcome:
    """Craft one file of a folder in every way, and put it back."""
    path, outcome = folder / name, Outcome()
    before = path.read_bytes()
    try:
        for what, content in crafted_contents(json.loads(before), values):
            path.write_text(json.dumps(content), encoding="utf-8")
            _with_time_limit(
                lambda w=what: try_folder(folder, f"{folder.name}/{name}: {w}", outcome)
            )
    finally:
        path.write_bytes(before)
    return outcome


def _with_time_limit(action: Callable[[], None]) -> None:
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        action()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _out_of_time(*_: object) -> None:
    raise TimeoutError(f"took more than {_SECONDS} seconds")


def in_child(action: Callable[[], Outcome], what: str) -> Outcome:
    """Run something in a forked child that may take little more memory than it has."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _limit_memory()
        signal.signal(signal.SIGALRM, _out_of_time)
        outcome = action()
        with os.fdopen(writer, "w", encoding="utf-8") as pipe:
            json.dump(vars(outcome), pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if not text:
        return Outcome(faults=[f"{what}: the process ended with {status}"])
    return Outcome(**json.loads(text))


def _limit_memory() -> None:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + _MORE_BYTES, now + _MORE_BYTES))


def files_of(folder: Path) -> list[str]:
    """The JSON files of a folder that decide what it is, at any depth."""
    found = sorted(folder.rglob("*.json"))
    return [str(path.relative_to(folder)) for path in found if path.name != "hashes.json"]


def run(samples: Mapping[str, Path], values: tuple[Any, ...] = VALUES) -> Outcome:
    """Craft every JSON file of every sample.

    Args:
        samples: Folders by what they hold; they are as they were at the end.
        values: What is put into each place.
    """
    total = Outcome()
    for folder in samples.values():
        use(folder)  # so that children need not import anything
        for name in files_of(folder):
            outcome = in_child(
                lambda f=folder, n=name: try_file(f, n, values), f"{folder.name}/{name}"
            )
            total.folders += outcome.folders
            total.refused += outcome.refused
            total.faults += outcome.faults
    return total
