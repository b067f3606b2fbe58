"""Rows of text files: one document of a corpus, or one text per line."""

from collections.abc import Iterator

from modernbert.data.corpus_files import UnpackedStream, open_unpacked
from modernbert.data.records import MAX_TEXT_BYTES, Reading, Row
from modernbert.reading import POINTER_REMEDY, is_pointer

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_SNIFFED_BYTES = 8192
# How packed files begin, whose names do not tell what they are.
_PACKED = {
    b"\x1f\x8b": "gzip; let its name end in .gz",
    b"\xfd7zXZ": "xz; let its name end in .xz",
    b"\x28\xb5\x2f\xfd": "zstandard; let its name end in .zst",
    b"PK\x03\x04": "a zip archive or a spreadsheet; unpack it or save it as .csv",
    b"BZh": "bzip2; unpack it",
    b"PAR1": "Parquet; let its name end in .parquet",
    b"ARROW1": "Arrow; let its name end in .arrow",
    b"]\0\0": "lzma; unpack it",
    b"%PDF-": "PDF; save its text",
    b"SQLite format 3": "a SQLite database; save a table as .csv",
}


def read_document(reading: Reading) -> Iterator[Row]:
    """Yield the file as one document; a very large one as several, split at line ends."""
    path, rules = reading.file.path, reading.rules
    with open_unpacked(reading.file, reading.settings.encoding) as stream:
        for index, (piece, is_whole_file) in enumerate(_pieces(stream)):
            reading.bytes_done = stream.bytes_done
            if index == 0 and is_binary(piece):
                rules.skip(path, "binary", detail=kind_of_binary(piece))
                return
            rules.skipped.num_split_files += index == 0 and not is_whole_file
            where = path if is_whole_file else f"{path}, piece {index}"
            yield Row({rules.text_field: piece.removeprefix(BYTE_ORDER_MARK)}, index, where)


def read_text_lines(reading: Reading) -> Iterator[Row]:
    """Yield each line that is not blank as a text."""
    path, rules = reading.file.path, reading.rules
    with open_unpacked(reading.file, reading.settings.encoding) as stream:
        if is_binary(sample := stream.peek(_SNIFFED_BYTES)):
            rules.skip(path, "binary", detail=kind_of_binary(sample))
            return
        for index, line in enumerate(stream):
            reading.bytes_done = stream.bytes_done
            text = (line if index else line.removeprefix(BYTE_ORDER_MARK)).rstrip(b"\r\n")
            if text.strip():
                yield Row({rules.text_field: text}, index, f"{path}, line {index + 1}")


def _pieces(stream: UnpackedStream) -> Iterator[tuple[bytes, bool]]:
    """Yield the bytes of the file in bounded pieces, and whether a piece is the whole file."""
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
    """Return where to cut: after the last line end, or else before the last character."""
    cut = content.rfind(b"\n") + 1
    if cut:
        return cut
    cut = len(content) - 1
    while cut > len(content) - 4 and content[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def is_binary(content: bytes) -> bool:
    """Return whether the beginning of a file has a byte that no text has, or is a pointer."""
    return b"\0" in content[:_SNIFFED_BYTES] or is_pointer(content) or content.startswith(b"%PDF-")


def kind_of_binary(content: bytes) -> str:
    """Describe what a file without text probably is, and what to do; empty if unknown.

    >>> kind_of_binary("a,b".encode("utf-16-le"))
    'looks like UTF-16; pass --encoding utf-16-le'
    """
    sample = content[:_SNIFFED_BYTES]
    if is_pointer(sample):
        return POINTER_REMEDY
    for mark, kind in _PACKED.items():
        if sample.startswith(mark):
            return f"looks like {kind}"
    if sample[257:262] == b"ustar":
        return "looks like a tar archive; unpack it"
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros = sample[first::2].count(0)
        if zeros * 4 > len(sample) and zeros == sample.count(0):
            return f"looks like UTF-16; pass --encoding {encoding}"
    return ""
