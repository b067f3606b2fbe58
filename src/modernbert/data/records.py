"""What reading a corpus gives: documents, and an account of what was skipped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from modernbert.data.corpus_files import CorpusFile
from modernbert.data.settings import FileSettings
from modernbert.errors import DocumentError

MAX_TEXT_BYTES = 16 << 20
_MAX_EXAMPLES = 5

ENCODING_REMEDY = "name the file's encoding, such as --encoding latin-1"

# The name of a record, or how to find it out where that costs something.
Where = str | Callable[[], str]


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        source: The path of its file.
        index: Its number in the file, or in the part of the file that is read, from 0: the record,
            or the piece of a large text file.
    """

    text: str
    source: str
    index: int


@dataclass
class Skipped:
    """What was not read, and why.

    Attributes:
        counts: Files and records by reason.
        examples: Where the first few of them were, with the reason.
        num_split_files: Text files of more than 16 MB, each split at line ends into documents.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    num_split_files: int = 0

    @property
    def total(self) -> int:
        """How many files and records were skipped."""
        return sum(self.counts.values())

    def add(self, where: str, reason: str, detail: str = "") -> None:
        """Count one file or record."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append(f"{where}: {reason}" + (f" ({detail})" if detail else ""))

    def update(self, other: "Skipped") -> None:
        """Add what another reader skipped."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
        self.examples = (self.examples + other.examples)[:_MAX_EXAMPLES]
        self.num_split_files += other.num_split_files

    def __str__(self) -> str:
        """One line for a person; empty when there is nothing to say."""
        parts = []
        if self.total:
            reasons = ", ".join(
                f"{count} {reason}" for reason, count in sorted(self.counts.items())
            )
            parts.append(f"{self.total} skipped ({reasons}), first {self.examples[0]}")
        if self.num_split_files:
            parts.append(
                f"{self.num_split_files} text files over {MAX_TEXT_BYTES >> 20} MB were split at "
                "line ends"
            )
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class RecordRules:
    """What a record must be, and what happens to one that is not.

    Attributes:
        text_field: The name of the text in JSON records and columns.
        strict: Stop at the first bad record instead of skipping it.
        remedy: What the error of a strict reader says to do.
    """

    skipped: Skipped
    text_field: str = "text"
    strict: bool = False
    remedy: str = "repair it, or read without strict to skip it"

    def skip(self, where: Where, reason: str, *, detail: str = "") -> None:
        """Count what cannot be read; `detail` is told of the example, but not counted apart.

        Raises:
            DocumentError: When strict.
        """
        where = where if isinstance(where, str) else where()
        if self.strict:
            told = f"{reason} ({detail})" if detail else reason
            raise DocumentError(f"{where}: {told}; {self.remedy}")
        self.skipped.add(where, reason, detail)

    def text(self, value: object, where: Where) -> str | None:
        """Return the text of a value that holds one; otherwise None, and the record is skipped."""
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError:
                self.skip(where, "invalid UTF-8", detail=ENCODING_REMEDY)
                return None
        if isinstance(value, str) and value and (value.isascii() or _is_unicode(value)):
            return value
        self.skip(where, self._fault(value))
        return None

    def _fault(self, value: object) -> str:
        if value is None:
            return f"no field {self.text_field!r}"
        if not isinstance(value, str):
            return "text is not a string"
        return "lone surrogate" if value else "empty"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file.

    Attributes:
        number: In its file, or in the part of it that is read, from 0; of JSON Lines and text it
            counts lines.
        where: What a message calls it.
    """

    values: Mapping[str, Any]
    number: int
    where: Where


@dataclass(kw_only=True)
class Reading:
    """One file that is being read, or the lines of it that begin in a range of its bytes.

    Attributes:
        start: The range, of unpacked JSON Lines only; stop is None for the end of the file.
        stop: As `start`.
        texts: What a text file is: one document, a text a line, perhaps sentences of words, or rows
            of labelled data.
        choose: Is told the names of a table's columns and gives those to be read; none where the
            file is to be skipped.
        settings: Its encoding, and whether a table has a header.
        asked: The columns that will be asked for. A number that the first row does not name says
            that the file has no header.
        bytes_done: How many of its bytes are read so far.
        facts: How the file was understood, for a person.
        decimal_comma: Whether its numbers may have a comma before the fraction.
        has_header: Whether a line of it named the columns.
    """

    file: CorpusFile
    rules: RecordRules
    start: int = 0
    stop: int | None = None
    texts: Literal["document", "lines", "words", "rows"] = "document"
    choose: Callable[[Sequence[str]], Sequence[str]] = list
    settings: FileSettings = field(default_factory=FileSettings)
    asked: Sequence[str] = ()
    bytes_done: int = 0
    facts: list[str] = field(default_factory=list)
    decimal_comma: bool = False
    has_header: bool = False


def _is_unicode(text: str) -> bool:
    """Whether the text has a UTF-8 form; JSON can smuggle in half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
