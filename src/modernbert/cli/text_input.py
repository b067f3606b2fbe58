"""Texts of a file with their ids: a JSON object a line, a row of Parquet, or a line of text."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modernbert.errors import InputError

if TYPE_CHECKING:
    from modernbert.data.records import RecordRules, Skipped


@dataclass(frozen=True)
class Record:
    """A text, and its own id or the number of its line, from 1."""

    id: str
    text: str


class TextInput:
    """The records of one file, read one after another, each time from the beginning.

    text_field, id_field: the names in JSON records.
    strict: stop at the first bad record; otherwise it is counted in `skipped`.

    Raises:
        DocumentError: no such file.
    """

    def __init__(
        self, path: Path, *, text_field: str = "text", id_field: str = "id", strict: bool = False
    ) -> None:
        from modernbert.data.corpus_files import find_files
        from modernbert.data.records import RecordRules, Skipped

        if path.is_dir():
            raise InputError(f"{path}: is a folder; name one file")
        (self.file,) = find_files([path])
        self.bytes_done = 0
        self.id_field = id_field
        self._rules = RecordRules(skipped=Skipped(), text_field=text_field, strict=strict)

    @property
    def skipped(self) -> "Skipped":
        """What could not be read so far."""
        return self._rules.skipped

    def __iter__(self) -> Iterator[Record]:
        if self.file.kind in ("parquet", "arrow"):
            return self._rows()
        return self._lines(is_json=self.file.kind == "lines")

    def _rows(self) -> Iterator[Record]:
        from modernbert.data.documents import read_file
        from modernbert.data.records import Reading

        reading = Reading(file=self.file, rules=self._rules)
        for document in read_file(reading):
            self.bytes_done = reading.bytes_done
            yield Record(str(document.index + 1), document.text)

    def _lines(self, *, is_json: bool) -> Iterator[Record]:
        for number, line in enumerate(self._raw_lines(), start=1):
            where = f"{self.file.path}, line {number}"
            if not line.strip():
                continue
            if is_json:
                record = _parsed(line, where, self._rules)
                if record is None:
                    continue
                name = record.get(self.id_field)
                value = record.get(self._rules.text_field)
            else:
                name, value = None, line.rstrip(b"\r\n")
            text = self._rules.text(value, where)
            if text is not None:
                yield Record(str(number if name is None else name), text)

    def _raw_lines(self) -> Iterator[bytes]:
        import lzma
        import zlib

        from modernbert.data.corpus_files import open_unpacked

        try:
            with open_unpacked(self.file) as stream:
                for line in stream:
                    self.bytes_done = stream.bytes_done
                    yield line
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise InputError(f"{self.file.path}: truncated or unreadable: {error}") from None


def _parsed(line: bytes, where: str, rules: "RecordRules") -> dict[str, Any] | None:
    """The JSON object of a line; None, and counted, when it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        rules.skip(where, "broken JSON")
        return None
    if not isinstance(record, dict):
        rules.skip(where, "JSON, but no object")
        return None
    return record
