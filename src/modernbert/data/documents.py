"""Documents of a corpus: read one after another, in bounded memory, whatever the files hold.

A text, Markdown or code file is one document; so is each record of JSON Lines, of Parquet and of
a dataset folder. What cannot be read is named, counted and skipped, or stops a strict reader.
"""

import lzma
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from modernbert.data.column_files import read_arrow, read_parquet
from modernbert.data.corpus_files import CorpusFile, find_files
from modernbert.data.records import Document, Reading, RecordRules, Skipped
from modernbert.data.text_files import read_lines, read_text

__all__ = ["Document", "DocumentReader", "Skipped", "read_file"]

_READERS = {"text": read_text, "lines": read_lines, "parquet": read_parquet, "arrow": read_arrow}


class DocumentReader:
    """All documents of some files and folders, in the order of `find_files`.

    text_field: the name of the text in JSON records and in columns.
    strict: stop at the first file or record that cannot be read.
    skipped: what could not be read so far.

    Raises:
        DocumentError: an input is missing; when strict, also anything that would be skipped.
    """

    def __init__(
        self, inputs: Iterable[Path | str], *, text_field: str = "text", strict: bool = False
    ) -> None:
        self.files = find_files(inputs)
        self.skipped = Skipped()
        self._rules = RecordRules(skipped=self.skipped, text_field=text_field, strict=strict)

    def __iter__(self) -> Iterator[Document]:
        for file in self.files:
            yield from read_file(Reading(file=file, rules=self._rules))


def read_file(reading: Reading) -> Iterator[Document]:
    """The documents of one file, or of one range of it."""
    broken = _broken_file_errors(reading.file)
    try:
        yield from _READERS[reading.file.kind](reading)
    except broken as error:
        message = str(error).partition("\n")[0]
        reading.rules.skip(reading.file.path, "truncated or unreadable", detail=message)


def _broken_file_errors(file: CorpusFile) -> tuple[type[Exception], ...]:
    """What reading raises when the bytes of a file are not what its name promises."""
    errors: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, lzma.LZMAError)
    if file.compression == "zst":
        import zstandard

        errors += (zstandard.ZstdError,)
    if file.kind in ("parquet", "arrow"):
        from pyarrow.lib import ArrowException

        errors += (ArrowException,)
    return errors
