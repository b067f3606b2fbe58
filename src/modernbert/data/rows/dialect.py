"""How a CSV or TSV file is written: what separates its columns, and how its quotes are escaped.

Programs write the same table in many ways. Every way in which a sample of the file can be read
without a fault is tried; the one that is left is the file's, and where two are left that give
different rows, the file is refused rather than guessed at.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from modernbert.data.rows.cells import shown
from modernbert.errors import DocumentError

MAX_FIELD_CHARACTERS = 64 << 20

Quotes = Literal["doubled", "backslash", "both", "none"]

_SEPARATORS = (",", ";", "\t", "|")
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
_LINE_END = re.compile(r"\r\n|\r|\n")
# The first line by which Excel is told what separates, in files of programs that write for it.
_SAID = re.compile(r'\ufeff?("?)sep=([,;\t|])\1(?=[\r\n])')
_SINGLE_QUOTED_HEADER = re.compile(r"'[^']*'([,;\t|]'[^']*')*")


@dataclass(frozen=True)
class Dialect:
    """A way to write a table.

    Attributes:
        separator: The character between columns.
        quotes: How a quotation mark within a quoted cell is written: doubled, after a backslash, or
            in both ways; `none` where quotation marks quote nothing, as in GLUE's files.
        quote: The quotation mark.
    """

    separator: str
    quotes: Quotes = "doubled"
    quote: str = '"'

    def __str__(self) -> str:
        told = {
            "doubled": "",
            "backslash": ", quotation marks escaped by backslashes",
            "both": ", backslashes escape",
            "none": ", quotation marks are text",
        }
        return f"{_NAMES[self.separator]}-separated{told[self.quotes]}"

    def reader(self, lines: Iterable[str]) -> "Any":
        """Return a reader of the `csv` module, in its strict mode."""
        csv.field_size_limit(MAX_FIELD_CHARACTERS)
        return csv.reader(
            lines,
            delimiter=self.separator,
            quotechar=None if self.quotes == "none" else self.quote,
            quoting=csv.QUOTE_NONE if self.quotes == "none" else csv.QUOTE_MINIMAL,
            doublequote=self.quotes in ("doubled", "both"),
            escapechar="\\" if self.quotes in ("backslash", "both") else None,
            strict=True,
        )


@dataclass(frozen=True)
class Line:
    """The cells of one row, and the line in which it begins."""

    cells: list[str]
    line: int


class QuoteFault(DocumentError):
    """A quotation mark where none is allowed.

    is_open: whether it opens a cell that has not ended where the rows do.

    Attributes:
        dialect: The dialect in which it is a fault.
    """

    is_open = False
    dialect: Dialect | None = None


def records(lines: Iterable[str], dialect: Dialect, source: str) -> Iterator[Line]:
    """Yield the rows of a file without blank lines.

    Raises:
        QuoteFault: A quotation mark opens no cell or closes none; the error has its line.
    """
    taken: list[str] = []

    def watched() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    reader = dialect.reader(watched())
    grammar = _Grammar(dialect)
    line = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise grammar.fault("".join(taken), source, line, str(error)) from None
        if cells is None:
            return
        raw = "".join(taken)
        taken.clear()
        if not grammar.fits(raw):
            raise grammar.fault(raw, source, line, "a misplaced mark")
        if cells:
            yield Line(cells, line)
        line = reader.line_num + 1


class _Grammar:
    """Where quotation marks and backslashes may stand in a row.

    The `csv` module, strict or not, takes a mark within an unquoted cell as text, and drops a
    backslash before any character.
    """

    def __init__(self, dialect: Dialect) -> None:
        quote, separator = re.escape(dialect.quote), re.escape(dialect.separator)
        escape = rf"\\[\\{quote}{separator}\r\n]"
        doubled, escaped = f"{quote}{quote}", rf"\\[\\{quote}]"
        inner = {"doubled": doubled, "backslash": escaped}.get(
            dialect.quotes, f"{doubled}|{escaped}"
        )
        self._escapes = dialect.quotes in ("backslash", "both")
        backslash = r"\\" if self._escapes else ""
        quoted = f"{quote}[^{quote}{backslash}]*+(?:(?:{inner})[^{quote}{backslash}]*+)*+{quote}"
        plain = f"[^{quote}{separator}{backslash}\r\n]"
        bare = f"(?:{plain}|{escape})*+" if self._escapes else f"{plain}*+"
        self._cell = re.compile(f"{quoted}|{bare}")
        self._row = re.compile(
            f"(?:{quoted}|{bare})(?:{separator}(?:{quoted}|{bare}))*+(?:\r\n|\r|\n)?"
        )
        self._dialect = dialect

    def fits(self, raw: str) -> bool:
        """Return whether a writer of this dialect could have written a row."""
        has_marks = self._dialect.quote in raw or (self._escapes and "\\" in raw)
        if self._dialect.quotes == "none" or not has_marks:
            return True
        return self._row.fullmatch(raw) is not None

    def fault(self, raw: str, source: str, line: int, otherwise: str) -> QuoteFault:
        """Return the error for a row that does not fit: its first misplaced mark."""
        place = 0
        while match := self._cell.match(raw, place):
            end = match.end()
            follows = raw[end : end + 1]
            if follows == self._dialect.separator:
                place = end + 1
                continue
            if follows in ("", "\r", "\n"):
                break
            where = f"{source}, line {_line_at(raw, end, line)}"
            rest = shown(_LINE_END.split(raw[end : end + 30])[0])
            if follows == "\\":
                return QuoteFault(f"{where}: a backslash that escapes nothing, before {rest}")
            if end == place and follows == self._dialect.quote:
                fault = QuoteFault(
                    f"{where}: a quotation mark opens a cell that never ends; {_REMEDY}"
                )
                fault.is_open = True
                return fault
            if match[0].startswith(self._dialect.quote):
                opened = _line_at(raw, place, line)
                return QuoteFault(
                    f"{source}, line {opened}: a quotation mark opens a cell whose end is followed "
                    f"by {rest} in line {_line_at(raw, end, line)}; {_REMEDY}"
                )
            return QuoteFault(
                f"{where}: a quotation mark stands within a cell, before {rest}; {_REMEDY}"
            )
        return QuoteFault(f"{source}, line {line}: {otherwise}")


_REMEDY = "take it away, or write the cell in quotation marks and those within it twice"


def _line_at(raw: str, place: int, first: int) -> int:
    return first + len(_LINE_END.findall(raw, 0, place))


def find_dialect(sample: str, source: str, *, is_whole: bool, is_tab: bool = False) -> Dialect:
    """Return the dialect of a file by a sample from its beginning.

    Args:
        sample: The beginning of the file.
        source: The name of the file, for messages.
        is_whole: Whether the sample is the whole file.
        is_tab: Whether the file's name says that tabs separate.

    Raises:
        DocumentError: No dialect fits, with the line of the fault, or two do that differ.
    """
    readings: list[_Reading] = []
    faults: list[QuoteFault] = []
    said = _SAID.match(sample)
    if said:
        sample = sample[said.end() :]  # its line end stays, so that lines keep their numbers
    for dialect in _candidates(sample, is_tab=is_tab, said=said[2] if said else None):
        try:
            readings.append(_Reading.of(sample, dialect, source, is_whole=is_whole))
        except QuoteFault as fault:
            fault.dialect = dialect
            faults.append(fault)
    if not readings:
        raise faults[0]  # of the plainest dialect, which tells best what is wrong
    fewest = min(reading.num_uneven for reading in readings)
    return _only_one([each for each in readings if each.num_uneven == fewest], source)


@dataclass(frozen=True)
class _Reading:
    """A sample as a dialect reads it, and how many rows are wider or narrower."""

    dialect: Dialect
    rows: list[list[str]]
    num_uneven: int

    @classmethod
    def of(cls, sample: str, dialect: Dialect, source: str, *, is_whole: bool) -> "_Reading":
        """Read a sample; its last row, perhaps incomplete, only if the sample is the whole file."""
        rows: list[list[str]] = []
        try:
            for record in records(io.StringIO(sample, newline=""), dialect, source):
                rows.append(record.cells)
        except QuoteFault as fault:
            if is_whole or not fault.is_open:
                raise
        else:
            rows = rows if is_whole else rows[:-1]
        num_uneven = sum(len(row) != len(rows[0]) for row in rows)
        return cls(dialect, rows, num_uneven)

    @property
    def needs_quotes(self) -> bool:
        """Return whether a cell can only have been written within quotation marks."""
        marks = (self.dialect.separator, self.dialect.quote, "\r", "\n")
        return any(mark in cell for row in self.rows for cell in row for mark in marks)


def _only_one(readings: Sequence[_Reading], source: str) -> Dialect:
    """Return the dialect of readings that agree.

    Raises:
        DocumentError: They do not agree.
    """
    first, *others = readings
    for other in others:
        if other.rows == first.rows:
            continue
        if other.dialect.quotes != "none":
            pairs = zip(first.rows, other.rows, strict=False)
            row = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            raise DocumentError(
                f"{source}: can be read as {first.dialect} or as {other.dialect}, and row "
                f"{row + 1} differs; save it as JSON Lines"
            )
        if not first.needs_quotes:
            return other.dialect
    return first.dialect


def _candidates(sample: str, *, is_tab: bool, said: str | None) -> Iterator[Dialect]:
    """Return the dialects that the first line allows, the plainest first."""
    begun = sample[:MAX_FIELD_CHARACTERS].lstrip("\r\n")
    header = next(iter(_LINE_END.split(begun, maxsplit=1)))
    quote = "'" if _SINGLE_QUOTED_HEADER.fullmatch(header) else '"'
    outside = "".join(header.split(quote)[::2])
    separators = [each for each in _SEPARATORS if each in outside] or list(_SEPARATORS)
    if is_tab and ("\t" in outside or not any(each in outside for each in _SEPARATORS)):
        separators = ["\t"]
    if said is not None:
        separators = [said]
    for separator in separators:
        yield Dialect(separator, "doubled", quote)
        if "\\" in sample:
            yield Dialect(separator, "backslash", quote)
            yield Dialect(separator, "both", quote)
        is_tabbed = separator == "\t" and (is_tab or "\t" in outside)
        if is_tabbed and not header.startswith(quote):
            yield Dialect(separator, "none", quote)


def says_separator(record: Line, dialect: Dialect) -> bool:
    """Return whether a row is the line that tells Excel the separator, and no data."""
    return record.line == 1 and dialect.separator.join(record.cells) == f"sep={dialect.separator}"


def require_width(record: Line, num_columns: int, dialect: Dialect, source: str) -> None:
    """Refuse a row that has more or fewer cells than there are columns.

    Raises:
        DocumentError: The row has another width; the message has its line.
    """
    if len(record.cells) != num_columns:
        remedy = (
            "a text with a tab or a line end needs a .csv or .jsonl file"
            if dialect.quotes == "none"
            else f"put a text with a {_NAMES[dialect.separator]} or a line end in quotation marks"
        )
        raise DocumentError(
            f"{source}, line {record.line}: has {len(record.cells)} values for {num_columns} "
            f"columns; {remedy}"
        )
