"""Which reader reads which file: the one place that a new format is told of.

    .csv, .tsv                 comma, semicolon, tab or pipe; the first row names the columns
    .jsonl, .ndjson            one JSON object a line
    .json                      the same, a list of objects, or questions as SQuAD publishes them
    .parquet, .arrow           columns; class labels of the `datasets` library get their names
    .conll, .iob, .bio, ...    a word and its tags a line, a blank line after each sentence
    anything else              text: a document, a text a line, or rows of labelled data

Each may be packed as .gz, .xz or .zst, except for Parquet and Arrow.
"""

import lzma
import zlib
from collections.abc import Callable, Iterator

from modernbert.data.corpus_files import CorpusFile
from modernbert.data.records import Reading, Row
from modernbert.data.rows.column_files import read_arrow, read_parquet
from modernbert.data.rows.conll import CONLL_SUFFIXES, read_conll
from modernbert.data.rows.delimited import read_delimited
from modernbert.data.rows.json_files import read_json, read_lines
from modernbert.data.rows.labelled_text import read_labelled_text, read_words
from modernbert.data.rows.plain_text import read_document, read_text_lines

READERS: dict[str, Callable[[Reading], Iterator[Row]]] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".jsonl": read_lines,
    ".ndjson": read_lines,
    ".json": read_json,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    **dict.fromkeys(CONLL_SUFFIXES, read_conll),
}
_TEXT_READERS = {
    "document": read_document,
    "lines": read_text_lines,
    "rows": read_labelled_text,
    "words": read_words,
}


def rows_of(reading: Reading) -> Iterator[Row]:
    """The rows of one file, or of one range of it, in bounded memory.

    What cannot be read is skipped, or stops a strict reader: see `RecordRules`.
    """
    read = READERS.get(reading.file.suffix) or _TEXT_READERS[reading.texts]
    if reading.texts == "document" and reading.file.suffix in CONLL_SUFFIXES:
        read = read_document
    path, rules = reading.file.path, reading.rules
    broken = _broken_file_errors(reading.file)
    try:
        yield from read(reading)
    except UnicodeDecodeError as error:
        rules.skip(path, f"not {error.encoding} text", detail=error.reason)
    except broken as error:
        rules.skip(path, "truncated or unreadable", detail=str(error).partition("\n")[0])


def _broken_file_errors(file: CorpusFile) -> tuple[type[Exception], ...]:
    """What reading raises when the bytes of a file are not what its name promises."""
    errors: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, lzma.LZMAError)
    if file.compression == "zst":
        import zstandard

        errors += (zstandard.ZstdError,)
    if file.suffix in (".parquet", ".arrow"):
        from pyarrow.lib import ArrowException

        errors += (ArrowException,)
    return errors
