"""Texts of files with their ids, read as `finetune` reads them, one after another."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from modernbert.data.remote_files import (
    FetchSettings,
    address_of,
    fetch,
    full_address,
    is_remote,
    list_remote,
)
from modernbert.data.settings import InputSettings, ShareSettings
from modernbert.errors import DocumentError, InputError

if TYPE_CHECKING:
    from modernbert.data.corpus_files import CorpusFile
    from modernbert.data.records import Row, Skipped

Given = str | tuple[str, str] | list[str]
RowKind = Literal["texts", "pairs", "words"]


@dataclass(frozen=True)
class InputRow:
    """A text, a pair of texts or the words of one, with its own id or its number, from 1."""

    id: str
    given: Given
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """As a person reads it."""
        if isinstance(self.given, str):
            return self.given
        return ("  |  " if isinstance(self.given, tuple) else " ").join(self.given)

    @property
    def shown(self) -> str | list[str]:
        """As JSON has it: the text, or the two texts of a pair."""
        return list(self.given) if isinstance(self.given, tuple) else self.text


class TextInput:
    """The records of a file or a folder, read one after another, each time from the beginning.

    Args:
        path: A file, a folder, or an address in object storage such as s3://bucket/texts; of any
            format that `data.rows.formats` knows. Of plain text each line is a text.
        settings: Which columns to read, and what to do with a bad row: a strict reader stops, any
            other counts it in `skipped`.
        kind: What a record is: a text, perhaps a pair of texts, or perhaps the words of one.
        share: Which share of the records to read, where several tasks share them.
        fields: More columns to read.
        needs_ids: Whether a file without ids is refused.

    Raises:
        DocumentError: There is no such file.
        InputError: There is no file in the folder, or at the address.
    """

    def __init__(
        self,
        path: Path,
        settings: InputSettings | None = None,
        *,
        kind: RowKind = "texts",
        share: ShareSettings | None = None,
        fields: Sequence[str] = (),
        needs_ids: bool = False,
    ) -> None:
        from modernbert.data.records import RecordRules, Skipped

        self.path, self.files = path, _find(path)
        self.share = share or ShareSettings()
        self._settings = settings or InputSettings()
        self._kind = kind
        self._fields, self._needs_ids = tuple(fields), needs_ids
        self._rules = RecordRules(
            skipped=Skipped(),
            text_field=self._settings.text_field or "text",
            strict=self._settings.strict,
        )

    @property
    def skipped(self) -> "Skipped":
        """What could not be read so far."""
        return self._rules.skipped

    def __iter__(self) -> Iterator[InputRow]:

        task, num_tasks = self.share.task, self.share.tasks
        if task is None or num_tasks is None:
            return self._rows_of_all(self.files)
        own = files_of_share(self.files, task, num_tasks)
        if own is not None:
            return self._rows_of_all(own)
        return islice(
            self._rows_of_all(self.files), *rows_of_share(self._num_rows, task, num_tasks)
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What tells whether the input is still the same."""
        return {
            "input": address_of(self.path) or str(self.path.resolve()),
            "input_bytes": sum(file.num_bytes for file in self.files),
            "input_time": max(file.mtime_ns for file in self.files),
        }

    @cached_property
    def _num_rows(self) -> int:
        return sum(1 for _ in TextInput(self.path, self._settings, kind=self._kind))

    def _rows_of_all(self, files: "Sequence[CorpusFile]") -> Iterator[InputRow]:
        for file in files:
            with _local_copy(file) as local:
                yield from self._rows(local, self._prefix(file))

    def _prefix(self, file: "CorpusFile") -> str:
        """What comes before a row's number: the name of its file, unless there is one file only."""
        name = file.path.removeprefix(file.input).lstrip("/")
        return f"{name}:" if name else ""

    def _rows(self, file: "CorpusFile", prefix: str) -> Iterator[InputRow]:
        from modernbert.data.records import Reading
        from modernbert.data.rows.formats import rows_of

        columns: _Columns | None = None

        def choose(names: Sequence[str]) -> Sequence[str]:
            nonlocal columns
            columns = self._columns(names, reading.has_header)
            return [*columns.texts, *([columns.id] if columns.id else []), *self._fields]

        reading = Reading(
            file=file,
            rules=self._rules,
            texts="words" if self._kind == "words" else "lines",
            settings=self._settings,
            asked=[name for name in (*self._asked, *self._fields) if name is not None],
            choose=choose,
        )
        for row in rows_of(reading):
            if columns is None:
                choose(list(row.values))
            assert columns is not None
            given = self._given(row, columns)
            if given is not None:
                name = None if columns.id is None else row.values.get(columns.id)
                number = f"{prefix}{row.number + 1}"
                kept = {each: _as_json(row.values.get(each)) for each in self._fields}
                yield InputRow(number if name is None else str(name), given, kept)

    @property
    def _asked(self) -> tuple[str | None, str | None, str | None]:
        """The columns of texts, of second texts and of ids that are asked for."""
        settings = self._settings
        return settings.text_field, getattr(settings, "text_pair", None), settings.id_field

    def _columns(self, names: Sequence[str], has_header: bool) -> "_Columns":
        """The columns to read.

        Raises:
            InputError: There is none of texts; an error of the whole file, whatever is skipped.
        """
        from modernbert.data.rows.table import IDS, TEXTS, WORDS, Table, TextColumns

        table = Table(source=str(self.path), columns=tuple(names), rows=[], has_header=has_header)
        text, pair, name = self._asked
        try:
            found = (
                table.first_of(IDS)
                if name is None
                else table.find([], asked=name, option="--id-field")
            )
            for each in self._fields:
                table.find([], asked=each, option="--field")
            if found is None and self._needs_ids:
                raise InputError(
                    f"{self.path}: has no column of ids, by which documents of an index are "
                    "replaced; name it with --id-field"
                )
            if self._kind == "pairs":
                return _Columns(TextColumns.find(table, text, pair).names, found)
            usual = WORDS if self._kind == "words" else TEXTS
            return _Columns((table.find(usual, asked=text, option="--text-field"),), found)
        except DocumentError as error:
            raise InputError(str(error)) from None

    def _given(self, row: "Row", columns: "_Columns") -> Given | None:
        """The text, pair or words of a row; None, and it is skipped, when it has none."""
        values = [row.values.get(name) for name in columns.texts]
        if self._kind == "words" and (words := self._words(values[0], columns.texts[0], row)):
            return words
        texts = [self._rules.text(value, row.where) for value in values]
        if any(text is None for text in texts):
            return None
        return texts[0] if len(texts) == 1 else (texts[0], texts[1])  # type: ignore[return-value]

    def _words(self, value: Any, column: str, row: "Row") -> list[str] | None:
        """The words of a cell that holds a list of them."""
        from modernbert.data.rows.cells import as_list

        if isinstance(value, str) and column in ("text", "sentence"):
            return None
        try:
            found = as_list(value)
        except DocumentError as error:
            self._rules.skip(row.where, "not a list of words", detail=str(error))
            return None
        if found is None or not all(isinstance(word, str) for word in found):
            return None
        return found


def _find(path: Path) -> "list[CorpusFile]":
    """The files of an input, in their order."""
    from modernbert.data.corpus_files import CorpusFile, find_files

    address = address_of(path)
    if address is None:
        files = find_files([path])
    else:
        found, root = list_remote(address), full_address(address)
        files = [CorpusFile(path=p, input=root, num_bytes=n, mtime_ns=0) for p, n in found]
    if not files:
        raise InputError(f"{address or path}: has no file to read")
    return files


@contextmanager
def _local_copy(file: "CorpusFile") -> Iterator["CorpusFile"]:
    """A file as one of this machine; that of a storage is there while it is read."""
    if not is_remote(file.path):
        yield file
        return
    with TemporaryDirectory(prefix="modernbert-") as folder:
        place = Path(folder) / file.path.rpartition("/")[2]
        fetch(file.path, place, FetchSettings(), num_bytes=file.num_bytes)
        yield replace(file, path=str(place))


def _as_json(value: Any) -> Any:
    """A value of a row as JSON can hold it."""
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


@dataclass(frozen=True)
class _Columns:
    """The names of the columns of the texts, and of the ids."""

    texts: Sequence[str]
    id: str | None


def files_of_share(
    files: "Sequence[CorpusFile]", task: int, num_tasks: int
) -> "Sequence[CorpusFile] | None":
    """Return the files of one task, which lie next to one another in the order of all files.

    Args:
        files: All files, in their order.
        task: The number of the share, from 0.
        num_tasks: The number of shares.

    Returns:
        The files; None where whole files would leave a task without any, or make a share more than
        twice as large as an even one.
    """
    owners, loads, done = [], [0] * num_tasks, 0
    sizes = [max(1, file.expected_text_bytes) for file in files]
    total = sum(sizes)
    for size in sizes:
        owner = (2 * done + size) * num_tasks // (2 * total)  # of the middle of the file
        owners.append(owner)
        loads[owner] += size
        done += size
    if 0 in loads or max(loads) * num_tasks > 2 * total:
        return None
    return [file for file, owner in zip(files, owners, strict=True) if owner == task]


def rows_of_share(num_rows: int, task: int, num_tasks: int) -> tuple[int, int]:
    """Return where the rows of one task begin and end, among all rows.

    >>> [rows_of_share(10, task, 3) for task in range(3)]
    [(0, 3), (3, 6), (6, 10)]
    """
    return num_rows * task // num_tasks, num_rows * (task + 1) // num_tasks
