"""Documents of a corpus: read one after another, in bounded memory, whatever the files hold.

A text, Markdown or code file is one document; so is each row of a table, of JSON Lines, of Parquet
and of a dataset folder. What cannot be read is named, counted and skipped, or stops a strict
reader.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from modernbert.data.corpus_files import find_files
from modernbert.data.records import Document, Reading, RecordRules, Skipped
from modernbert.data.rows.file_settings import FileSettings
from modernbert.data.rows.formats import rows_of

__all__ = ["Document", "DocumentReader", "Skipped", "read_file"]


class DocumentReader:
    """All documents of some files and folders, in the order of `find_files`.

    text_field: the name of the text in JSON records and in columns.
    strict: stop at the first file or record that cannot be read.
    settings: the encoding of text, and whether tables have a header.
    skipped: what could not be read so far.

    Raises:
        DocumentError: an input is missing; when strict, also anything that would be skipped.
    """

    def __init__(
        self,
        inputs: Iterable[Path | str],
        *,
        text_field: str = "text",
        strict: bool = False,
        settings: FileSettings | None = None,
    ) -> None:
        self.files = find_files(inputs)
        self.skipped = Skipped()
        self._rules = RecordRules(skipped=self.skipped, text_field=text_field, strict=strict)
        self._settings = settings or FileSettings()

    def __iter__(self) -> Iterator[Document]:
        for file in self.files:
            yield from read_file(Reading(file=file, rules=self._rules, settings=self._settings))


def read_file(reading: Reading) -> Iterator[Document]:
    """The documents of one file, or of one range of it."""
    rules, path = reading.rules, reading.file.path

    def choose(names: Sequence[str]) -> Sequence[str]:
        if list(names).count(rules.text_field) == 1:
            return [rules.text_field]
        detail = f"columns are {', '.join(names)}"
        rules.skip(path, f"no column {rules.text_field!r}", detail=detail)
        return []

    reading.choose = choose
    for row in rows_of(reading):
        text = rules.text(row.values.get(rules.text_field), row.where)
        if text is not None:
            yield Document(text, path, row.number)
