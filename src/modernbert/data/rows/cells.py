"""What a cell of a row contains: a number, a yes or no, or a list, in any written form."""

import ast
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from modernbert.errors import DocumentError

_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_DECIMAL_COMMA = re.compile(r"(\s*[+-]?\d*),(\d+\s*)", re.ASCII)
_YES = {"1", "true", "yes"}
_NO = {"0", "false", "no"}

# A list as NumPy prints an array of objects: array(['a', 'b'], dtype=object)
_ARRAY = re.compile(r"array\((.*?)(,\s*dtype=[^()]*)?\)", re.DOTALL)
_ARRAY_WITHIN = re.compile(r"array\((\[[^\[\]]*\])(?:,\s*dtype=[^()]*)?\)")
# What a list is made of: brackets, commas, and values with nothing to be computed in them.
_TOKEN = re.compile(
    r"""\s*(?P<value>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"
    |[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])
    |(?:True|False|None|true|false|null)(?!\w))
    |\s*(?P<mark>[\[\](),])""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_WORDS = {"true": True, "false": False, "null": None}
_CLOSING = {"[": "]", "(": ")"}


def number(value: object, *, decimal_comma: bool = False) -> float | None:
    """Return the number that a value is or contains as text; None for others, such as `True`.

    >>> number("1.5"), number("1_0"), number("0,5", decimal_comma=True), number(True)
    (1.5, None, 0.5, None)

    Args:
        value: A cell, as any reader returns it.
        decimal_comma: Whether a comma may stand before the fraction.
    """
    value = plain(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str):
        return None
    if decimal_comma:
        value = _DECIMAL_COMMA.sub(r"\1.\2", value)
    return float(value) if _NUMBER.fullmatch(value) else None


def whole_number(value: object) -> int | None:
    """Return the whole number that a value is or contains, also with `.0`; else None.

    >>> whole_number(13.0), whole_number("13"), whole_number(0.5)
    (13, 13, None)
    """
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def flag(value: object, *, decimal_comma: bool = False) -> bool | None:
    """Return whether a cell means yes or no: 0 and 1 of any numeric type, true, false, yes and no.

    >>> flag(1.0), flag("0.0"), flag("TRUE"), flag(2), flag(None)
    (True, False, True, None, None)
    """
    found = number(value, decimal_comma=decimal_comma)
    name = f"{found:g}" if found is not None else str(plain(value)).strip().lower()
    return True if name in _YES else False if name in _NO else None


def plain(value: Any) -> Any:
    """Return scalars of NumPy and other libraries with `item` as Python's own; others unchanged."""
    item = getattr(value, "item", None)
    return item() if callable(item) and not getattr(value, "shape", ()) else value


def of_library(value: Any) -> Any:
    """Return values, series and arrays of pyarrow, NumPy, pandas and polars as Python's own."""
    names = ("as_py", "to_list", "tolist", "to_pylist")
    convert = next((found for name in names if (found := getattr(value, name, None))), None)
    return value if convert is None else convert()


def is_missing(value: object) -> bool:
    """Return whether a cell is empty: None, NaN or an empty text."""
    value = plain(value)
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def as_list(value: Any) -> list[Any] | None:
    """Return the list that a value is, or that a text contains as JSON, Python or NumPy print it.

    Anything that is no list and does not look like one gives None.

    The values of a set come in the order of their names.

    >>> as_list("['a', 'b']"), as_list("['a' 'b']"), as_list("{'b', 'a'}"), as_list("a b")
    (['a', 'b'], ['a', 'b'], ['a', 'b'], None)

    Raises:
        DocumentError: A text that looks like a list but is none that can be read.
    """
    if isinstance(value, str):
        return _parsed(value) if looks_like_list(value) else None
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    to_list = getattr(value, "tolist", None) or getattr(value, "to_pylist", None)
    found = to_list() if callable(to_list) else value
    return found if isinstance(found, list) else None


def looks_like_list(value: object) -> bool:
    """Return whether a text begins like a printed list, array, tuple or set.

    >>> looks_like_list("['a', 'b"), looks_like_list("('a',)"), looks_like_list("(a)")
    (True, True, False)
    """
    if not isinstance(value, str):
        return False
    text = value.strip()
    is_tuple = text.startswith("(") and text.endswith(")") and "," in text
    if is_tuple or text == "set()" or text.startswith(("[", "array(")):
        return True
    return text.startswith("{") and isinstance(as_object(text), set)


def _parsed(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) and ("{" in text or text.strip() == "set()"):
        found = as_object(text)
    if isinstance(found, list | set):
        return found if isinstance(found, list) else sorted(found, key=str)
    array = _ARRAY.fullmatch(text.strip())
    try:
        return _Printed(array[1] if array else text).read()
    except (ValueError, SyntaxError, RecursionError):
        raise DocumentError(
            f"got {shown(text)}, which looks like a list but cannot be read as one; write it as "
            'JSON, such as ["a", "b"]'
        ) from None


def as_object(text: str) -> Any:
    """Parse a text as JSON or as Python prints it, with NumPy arrays inside; else return the text.

    >>> as_object("{'text': ['x'], 'answer_start': array([5], dtype=int32)}")
    {'text': ['x'], 'answer_start': [5]}
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(_ARRAY_WITHIN.sub(r"\1", text.strip()))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


class _Printed:
    """A list as Python or NumPy prints it, with commas between all elements or between none."""

    def __init__(self, text: str) -> None:
        self._tokens = self._split(text)
        self._place = 0

    def read(self) -> list[Any]:
        found = self._list()
        if self._place < len(self._tokens):
            raise ValueError("something follows the list")
        return found

    @staticmethod
    def _split(text: str) -> list[tuple[str, str]]:
        tokens, place = [], 0
        text = text.rstrip()
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise ValueError("no value")
            kind = match.lastgroup or ""
            tokens.append((kind, match[kind]))
            place = match.end()
        return tokens

    def _list(self) -> list[Any]:
        kind, opening = self._next()
        if kind != "mark" or opening not in _CLOSING:
            raise ValueError("no list")
        items: list[Any] = []
        separators = set()
        while (token := self._peek()) != ("mark", _CLOSING[opening]):
            if items:
                has_comma = token == ("mark", ",")
                self._place += has_comma
                separators.add(has_comma)
                if has_comma and self._peek() == ("mark", _CLOSING[opening]):
                    break  # a comma after the last element
            items.append(self._item())
        self._place += 1
        if {True, False} <= separators:
            raise ValueError("some elements have a comma between them and some have none")
        return items

    def _item(self) -> Any:
        kind, token = self._peek()
        if kind == "mark":
            return self._list()
        self._place += 1
        return _WORDS[token] if token in _WORDS else ast.literal_eval(token)

    def _peek(self) -> tuple[str, str]:
        if self._place >= len(self._tokens):
            raise ValueError("the list has no end")
        return self._tokens[self._place]

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._place += 1
        return token


def shown(value: object, most: int = 60) -> str:
    """Return a value for a message, cut to a number of characters."""
    if value is None:
        return "nothing"
    text = repr(value)
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= most else f"{text[: most - 3]}..."


def are_flags(rows: Sequence[Sequence[Any]]) -> bool:
    """Return whether lists are vectors of flags: of one length above 1, with only 0 and 1."""
    widths = {len(row) for row in rows}
    if len(widths) != 1 or min(widths) < 2:
        return False
    return all(number(each) in (0.0, 1.0) or isinstance(each, bool) for row in rows for each in row)
