"""Texts of a file with their ids, read as `finetune` reads it, one after another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modernbert.data.settings import InputSettings
from modernbert.errors import DocumentError, InputError

if TYPE_CHECKING:
    from modernbert.data.records import Row, Skipped

Given = str | tuple[str, str] | list[str]
RowKind = Literal["texts", "pairs", "words"]


@dataclass(frozen=True)
class InputRow:
    """A text, a pair of texts or the words of one, with its own id or its number, from 1."""

    id: str
    given: Given

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
    """The records of one file, read one after another, each time from the beginning.

    Args:
        path: Of any format that `data.rows.formats` knows; of plain text each line is a text.
        settings: Which columns to read, and what to do with a bad row: a strict reader stops, any
            other counts it in `skipped`.
        kind: What a record is: a text, perhaps a pair of texts, or perhaps the words of one.

    Raises:
        DocumentError: There is no such file.
    """

    def __init__(
        self, path: Path, settings: InputSettings | None = None, *, kind: RowKind = "texts"
    ) -> None:
        from modernbert.data.corpus_files import find_files
        from modernbert.data.records import RecordRules, Skipped

        if path.is_dir():
            raise InputError(f"{path}: is a folder; name one file")
        (self.file,) = find_files([path])
        self.bytes_done = 0
        self._settings = settings or InputSettings()
        self._kind = kind
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
        from modernbert.data.records import Reading
        from modernbert.data.rows.formats import rows_of

        columns: _Columns | None = None

        def choose(names: Sequence[str]) -> Sequence[str]:
            nonlocal columns
            columns = self._columns(names, reading.has_header)
            return [*columns.texts, *([columns.id] if columns.id else [])]

        reading = Reading(
            file=self.file,
            rules=self._rules,
            texts="words" if self._kind == "words" else "lines",
            settings=self._settings,
            asked=[name for name in self._asked if name is not None],
            choose=choose,
        )
        for row in rows_of(reading):
            self.bytes_done = reading.bytes_done
            if columns is None:
                choose(list(row.values))
            assert columns is not None
            given = self._given(row, columns)
            if given is not None:
                name = None if columns.id is None else row.values.get(columns.id)
                yield InputRow(str(row.number + 1 if name is None else name), given)

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

        table = Table(source=self.file.path, columns=tuple(names), rows=[], has_header=has_header)
        text, pair, name = self._asked
        try:
            found = (
                table.first_of(IDS)
                if name is None
                else table.find([], asked=name, option="--id-field")
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


@dataclass(frozen=True)
class _Columns:
    """The names of the columns of the texts, and of the ids."""

    texts: Sequence[str]
    id: str | None
