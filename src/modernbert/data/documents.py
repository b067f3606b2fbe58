"""The documents of a corpus, and the work units into which it is divided for all cores.

A text, Markdown or code file is one document. So is each row of a table, of JSON Lines, of Parquet
and of a dataset folder. What cannot be read is named, counted and skipped, or stops a strict
reader.

The units, and the random keys of their documents, depend only on the files and never on the number
of processes.
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modernbert.data.corpus_files import CorpusFile, find_files
from modernbert.data.records import Document, Reading, RecordRules, Skipped
from modernbert.data.rows.formats import rows_of
from modernbert.data.rows.json_files import can_be_cut
from modernbert.data.settings import FileSettings

__all__ = ["Document", "DocumentReader", "Skipped", "read_file"]


class DocumentReader:
    """Reads all documents of files and folders, in the order of `find_files`.

    `skipped` counts what could not be read so far.

    Args:
        text_field: The name of the text in JSON records and in columns.
        strict: Whether to stop at the first file or record that cannot be read.
        settings: The encoding of text, and whether tables have a header.

    Raises:
        DocumentError: An input is missing; if strict, also anything that would be skipped.
    """

    def __init__(
        self,
        inputs: Iterable[Path | str],
        *,
        text_field: str = "text",
        strict: bool = False,
        settings: FileSettings | None = None,
    ) -> None:
        self.skipped = Skipped()
        self._rules = RecordRules(skipped=self.skipped, text_field=text_field, strict=strict)
        self.files = find_files(inputs, pass_over=self._rules.skip)
        self._settings = settings or FileSettings()

    def __iter__(self) -> Iterator[Document]:
        for file in self.files:
            yield from read_file(Reading(file=file, rules=self._rules, settings=self._settings))


def read_file(reading: Reading) -> Iterator[Document]:
    """Yield the documents of a file, or of a range of it."""
    rules, path = reading.rules, reading.file.path

    def choose(names: Sequence[str]) -> Sequence[str]:
        if list(names).count(rules.text_field) == 1:
            return [rules.text_field]
        wrong = "several columns" if rules.text_field in names else "no column"
        detail = f"columns are {', '.join(names)}"
        rules.skip(path, f"{wrong} {rules.text_field!r}", detail=detail)
        return []

    reading.choose = choose
    for row in rows_of(reading):
        if rules.text_field not in row.values and row.values:
            detail = f"fields are {', '.join(list(row.values)[:10])}"
            rules.skip(row.where, f"no field {rules.text_field!r}", detail=detail)
            continue
        text = rules.text(row.values[rules.text_field], row.where)
        if text is not None and text.isspace():
            rules.skip(row.where, "empty")
        elif text is not None:
            yield Document(text, path, row.number)


UNIT_BYTES = 64 << 20
_LEAST_UNIT_BYTES = 2 << 20
_WANTED_UNITS = 64


@dataclass(frozen=True, kw_only=True)
class FilePart:
    """A file, or the lines of it that begin within a range of its bytes."""

    file: CorpusFile
    start: int = 0
    stop: int | None = None

    @property
    def num_bytes(self) -> int:
        """The size of the range in the file."""
        return (self.file.num_bytes if self.stop is None else self.stop) - self.start

    @property
    def expected_text_bytes(self) -> int:
        """An estimate of the size of the part's text."""
        if self.stop is None and self.start == 0:
            return self.file.expected_text_bytes
        return self.num_bytes


@dataclass(frozen=True, kw_only=True)
class WorkUnit:
    """Parts of one input that are read one after another.

    Attributes:
        index: The number of the unit in the corpus.
    """

    index: int
    parts: tuple[FilePart, ...]

    @property
    def input(self) -> str:
        """The input given by the user to which all parts belong."""
        return self.parts[0].file.input

    @property
    def num_bytes(self) -> int:
        """The size of all parts in their files."""
        return sum(part.num_bytes for part in self.parts)

    @property
    def expected_text_bytes(self) -> int:
        """An estimate of the size of the unit's text."""
        return sum(part.expected_text_bytes for part in self.parts)


class UnitReader:
    """Reads the documents of one unit; `bytes_done` says how far it has come."""

    def __init__(
        self, unit: WorkUnit, rules: RecordRules, settings: FileSettings | None = None
    ) -> None:
        self._unit = unit
        self._rules = rules
        self._settings = settings or FileSettings()
        self._bytes_before = 0
        self._reading: Reading | None = None

    @property
    def bytes_done(self) -> int:
        """The number of bytes of the unit's parts that were read so far."""
        return self._bytes_before + (self._reading.bytes_done if self._reading else 0)

    def __iter__(self) -> Iterator[Document]:
        for part in self._unit.parts:
            self._reading = Reading(
                file=part.file,
                rules=self._rules,
                start=part.start,
                stop=part.stop,
                settings=self._settings,
            )
            yield from read_file(self._reading)
            self._reading = None
            self._bytes_before += part.num_bytes


def even_unit_bytes(files: Sequence[CorpusFile]) -> int:
    """Choose a size of units with which many cores end at about the same time.

    It is at most `UNIT_BYTES`.
    """
    expected = sum(file.expected_text_bytes for file in files)
    return min(UNIT_BYTES, max(_LEAST_UNIT_BYTES, expected // _WANTED_UNITS))


def plan_units(
    files: Sequence[CorpusFile], *, unit_bytes: int, encoding: str | None = None
) -> list[WorkUnit]:
    """Divide large uncompressed JSON Lines files into ranges, and join small files of one input.

    Args:
        files: The files of the corpus.
        unit_bytes: The size of a unit, in bytes.
        encoding: The encoding of the files; only UTF-8 files can be divided.
    """
    can_cut = encoding is None or codecs.lookup(encoding).name == "utf-8"
    parts = (part for file in files for part in _parts(file, unit_bytes, can_cut=can_cut))
    return [
        WorkUnit(index=index, parts=tuple(together))
        for index, together in enumerate(_together(parts, unit_bytes))
    ]


def share_of(units: Sequence[WorkUnit], task: int, num_tasks: int) -> list[WorkUnit]:
    """Return the units of one of several tasks; all tasks get about the same size."""
    by_size = sorted(units, key=lambda unit: (-unit.expected_text_bytes, unit.index))
    return sorted(by_size[task::num_tasks], key=lambda unit: unit.index)


def _parts(file: CorpusFile, unit_bytes: int, *, can_cut: bool) -> list[FilePart]:
    if not can_cut or file.num_bytes <= unit_bytes or not can_be_cut(file):
        return [FilePart(file=file)]
    starts = range(0, file.num_bytes, unit_bytes)
    return [
        FilePart(file=file, start=start, stop=min(start + unit_bytes, file.num_bytes))
        for start in starts
    ]


def _together(parts: Iterable[FilePart], unit_bytes: int) -> Iterator[list[FilePart]]:
    """Join parts of one input, in their order, up to the size of a unit."""
    held: list[FilePart] = []
    held_bytes = 0
    for part in parts:
        part_bytes = part.expected_text_bytes
        is_full = held_bytes + part_bytes > unit_bytes
        if held and (is_full or held[0].file.input != part.file.input):
            yield held
            held, held_bytes = [], 0
        held.append(part)
        held_bytes += part_bytes
    if held:
        yield held
