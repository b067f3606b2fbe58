"""Rows of CSV and TSV files: cells are texts, and the first row names the columns."""

import io
from collections.abc import Iterator, Sequence

from modernbert.data.corpus_files import open_unpacked
from modernbert.data.records import ENCODING_REMEDY, Reading, Row
from modernbert.data.rows.conll import is_conll, read_conll
from modernbert.data.rows.dialect import (
    Dialect,
    Line,
    QuoteFault,
    find_dialect,
    records,
    require_width,
    says_separator,
)
from modernbert.data.rows.plain_text import is_binary, kind_of_binary
from modernbert.errors import DocumentError

# So much is looked at to find out how a file is written.
SAMPLE_BYTES = 4 << 20


def read_delimited(reading: Reading) -> Iterator[Row]:
    """Yield the rows below the names of the columns.

    A row of another width is skipped. After a fault in the quotation marks the rest of the file is
    skipped, as nothing that follows can be trusted.
    """
    path, rules = reading.file.path, reading.rules
    content = _sample(reading)
    is_whole = len(content) < SAMPLE_BYTES
    if is_binary(content):
        rules.skip(path, "binary", detail=kind_of_binary(content))
        return
    sample = content.decode("utf-8-sig", errors="replace")
    if reading.file.suffix == ".tsv" and is_conll(sample):
        yield from read_conll(reading)
        return
    dialect = _dialect_of(sample, is_whole, reading)
    if dialect is None:
        return
    with open_unpacked(reading.file, reading.settings.encoding) as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        found = records(lines, dialect, path)
        columns: tuple[str, ...] = ()
        index = -1
        long_rows: list[int] = []
        try:
            for record in found:
                reading.bytes_done = stream.bytes_done
                if says_separator(record, dialect):
                    continue
                if not columns:
                    columns = _names(record, reading)
                    if not reading.choose(columns):
                        return
                    if reading.has_header:
                        continue
                index += 1
                if any("\n" in cell or "\r" in cell for cell in record.cells):
                    long_rows.append(record.line)
                if (values := _values(record, columns, dialect, reading)) is not None:
                    yield Row(values, index, f"{path}, line {record.line}")
        except DocumentError as fault:
            _skip(reading, fault)
        except UnicodeDecodeError:
            rules.skip(_first_undecoded(reading), "invalid UTF-8", detail=ENCODING_REMEDY)
    if long_rows:
        rows = "1 row" if len(long_rows) == 1 else f"{len(long_rows):,} rows"
        reading.facts.append(f"{rows} of several lines, the first in line {long_rows[0]}")


def _sample(reading: Reading) -> bytes:
    """Return the beginning of the file."""
    with open_unpacked(reading.file, reading.settings.encoding) as stream:
        return stream.read(SAMPLE_BYTES)


def _dialect_of(sample: str, is_whole: bool, reading: Reading) -> Dialect | None:
    """Return how the file is written; None if it is no such file, which is then skipped."""
    path, rules = reading.file.path, reading.rules
    if not sample.strip():
        rules.skip(path, "empty")
    else:
        try:
            is_tab = reading.file.suffix != ".csv"
            dialect = find_dialect(sample, path, is_whole=is_whole, is_tab=is_tab)
        except DocumentError as fault:
            if not isinstance(fault, QuoteFault) or rules.strict or fault.dialect is None:
                _skip(reading, fault)
                return None
            dialect = fault.dialect  # in which the rows before the fault are read
        reading.facts.append(str(dialect))
        reading.decimal_comma = dialect.separator == ";"
        return dialect
    return None


def _skip(reading: Reading, fault: DocumentError) -> None:
    """Skip the file, or the rest of it; a strict reader raises the fault."""
    if reading.rules.strict:
        raise fault
    where, _, reason = str(fault).partition(": ")
    reading.rules.skip(where, "broken quotation marks or columns", detail=reason)


def _names(first: Line, reading: Reading) -> tuple[str, ...]:
    """Return the names of the columns: those of the first row, or numbers from 1."""
    names = tuple(name.strip() for name in first.cells)
    has_numbers = any(name.isdecimal() and name not in names for name in reading.asked)
    reading.has_header = reading.settings.header and not has_numbers
    if not reading.has_header:
        reading.facts.append("no header")
        return tuple(str(number + 1) for number in range(len(names)))
    for name in names:
        if names.count(name) > 1:
            raise DocumentError(
                f"{reading.file.path}, line {first.line}: two columns are named {name!r}; rename "
                "one, or pass --no-header if this row is data"
            )
    return names


def _values(
    record: Line, columns: Sequence[str], dialect: Dialect, reading: Reading
) -> dict[str, str] | None:
    if len(record.cells) != len(columns):
        if not "".join(record.cells).strip():
            return None  # a line of blanks or separators alone
        try:
            require_width(record, len(columns), dialect, reading.file.path)
        except DocumentError as fault:
            _skip(reading, fault)
            return None
    return dict(zip(columns, record.cells, strict=True))


def _first_undecoded(reading: Reading) -> str:
    """Return the path and the first line that is not UTF-8."""
    with open_unpacked(reading.file, reading.settings.encoding) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return f"{reading.file.path}, line {number}"
    return reading.file.path
