"""Documents of text files, whole, and of JSON Lines, one a line."""

import json
from collections.abc import Iterator
from functools import partial

from modernbert.data.corpus_files import UnpackedStream, open_unpacked
from modernbert.data.records import MAX_TEXT_BYTES, Document, Reading

MAX_LINE_BYTES = 64 << 20

_SNIFFED_BYTES = 8192
_BLOCK_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_text(reading: Reading) -> Iterator[Document]:
    """The file as one document; a very large one as several, split at line ends."""
    path, rules = reading.file.path, reading.rules
    with open_unpacked(reading.file) as stream:
        for index, (piece, is_whole_file) in enumerate(_pieces(stream)):
            reading.bytes_done = stream.bytes_done
            if index == 0 and _is_binary(piece):
                rules.skip(path, "binary")
                return
            rules.skipped.num_split_files += index == 0 and not is_whole_file
            where = path if is_whole_file else f"{path}, piece {index}"
            text = rules.text(piece.removeprefix(_BYTE_ORDER_MARK), where)
            if text is not None:
                yield Document(text, path, index)


def _pieces(stream: UnpackedStream) -> Iterator[tuple[bytes, bool]]:
    """The bytes of the file in pieces of bounded size, and whether one is the whole file."""
    content = stream.read(MAX_TEXT_BYTES)
    if len(content) < MAX_TEXT_BYTES:
        yield content, True
        return
    while len(content) == MAX_TEXT_BYTES:
        cut = _last_line_end(content)
        yield content[:cut], False
        content = content[cut:]
        content += stream.read(MAX_TEXT_BYTES - len(content))
    if content:
        yield content, False


def _last_line_end(content: bytes) -> int:
    """Where to cut: after the last line end, or else before the last character."""
    cut = content.rfind(b"\n") + 1
    if cut:
        return cut
    cut = len(content) - 1
    while cut > len(content) - 4 and content[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def read_lines(reading: Reading) -> Iterator[Document]:
    """The text of each line's JSON object; of a range, the lines that begin in it."""
    with open_unpacked(reading.file) as stream:
        position = _first_line(stream, reading.start)
        index = 0
        while reading.stop is None or position < reading.stop:
            line = stream.readline(MAX_LINE_BYTES)
            if index == 0 and reading.start == 0 and _is_no_lines_file(line, reading):
                return
            if not line:
                return
            position += len(line)
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                position += _discard_line(stream)
                reading.rules.skip(_name(reading, index), f"over {MAX_LINE_BYTES >> 20} MB long")
            elif (text := _text_of_line(line, reading, index)) is not None:
                yield Document(text, reading.file.path, index)
            reading.bytes_done = stream.bytes_done - reading.start
            index += 1


def _first_line(stream: UnpackedStream, start: int) -> int:
    """Go to the first line that begins at `start` or after it; returns its position."""
    if start == 0:
        return 0
    # A line that begins before the range belongs to the range before, all of it.
    stream.seek(start - 1)
    return start - 1 + _discard_line(stream)


def _discard_line(stream: UnpackedStream) -> int:
    """Read to the end of the line; returns the number of bytes."""
    count = 0
    while block := stream.readline(_BLOCK_BYTES):
        count += len(block)
        if block.endswith(b"\n"):
            break
    return count


def _is_no_lines_file(first_line: bytes, reading: Reading) -> bool:
    """Whether the first line shows that the file is something else, which is then skipped."""
    if not first_line:
        reason = "empty"
    elif _is_binary(first_line):
        reason = "binary"
    elif reading.file.is_json and not _is_object(first_line):
        reason = "JSON, but not one object a line"
    else:
        return False
    reading.rules.skip(reading.file.path, reason)
    return True


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(_parsed(line), dict)
    except (ValueError, RecursionError):
        return False


def _text_of_line(line: bytes, reading: Reading, index: int) -> str | None:
    """The text of a line; None for a blank one, and for a bad one, which is skipped."""
    if line.isspace():
        return None
    rules = reading.rules
    # The name is made only for a bad record: it may cost reading the file from its start.
    where = partial(_name, reading, index)
    try:
        record = _parsed(line)
    except UnicodeDecodeError:
        rules.skip(where, "invalid UTF-8")
    except (ValueError, RecursionError):
        rules.skip(where, "broken JSON")
    else:
        if isinstance(record, dict):
            return rules.text(record.get(rules.text_field), where)
        rules.skip(where, "not a JSON object")
    return None


def _parsed(line: bytes) -> object:
    return json.loads(line.removeprefix(_BYTE_ORDER_MARK).decode())


def _is_binary(content: bytes) -> bool:
    return b"\0" in content[:_SNIFFED_BYTES]


def _name(reading: Reading, index: int) -> str:
    """The path and the number of the line in its file, from 1."""
    return f"{reading.file.path}, line {_lines_before(reading) + index + 1}"


def _lines_before(reading: Reading) -> int:
    """The number of lines that begin before the range; counted only when one must be named."""
    if reading.start == 0:
        return 0
    with open_unpacked(reading.file) as stream:
        position = _first_line(stream, reading.start)
        stream.seek(0)
        count = 0
        while position > 0 and (block := stream.read(min(position, _BLOCK_BYTES))):
            count += block.count(b"\n")
            position -= len(block)
    return count
