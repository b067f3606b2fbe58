"""The files of a corpus: which ones there are, in what order, and how they are unpacked."""

import codecs
import difflib
import errno
import gzip
import io
import lzma
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from modernbert.errors import DocumentError
from modernbert.extras import import_extra
from modernbert.json_files import read_json

Compression = Literal["", "gz", "xz", "zst"]

_COMPRESSIONS: dict[str, Compression] = {".gz": "gz", ".xz": "xz", ".zst": "zst"}
# How many bytes of text a byte of the file gives, about: only for sharing out the work.
_EXPANSION = {"": 1, "gz": 3, "xz": 4, "zst": 4}
# What programs put beside the files of data.
_NO_DATA = ("dataset_dict.json", "_SUCCESS", "_metadata", "_common_metadata")
_BUFFER_BYTES = 1 << 17
# Little at a time, because a few bytes of a frame can unpack to a hundred thousand.
_FRAME_BYTES = 4096
# A header may ask for gigabytes: xz -9 takes 65 MiB, and zstd without --long 128 MiB at most.
_UNPACKING_BYTES = 1 << 27


@dataclass(frozen=True, kw_only=True)
class CorpusFile:
    """A regular file, and its state when it was found.

    Attributes:
        input: The path given by the user through which the file was found.
    """

    path: str
    input: str
    num_bytes: int
    mtime_ns: int

    @property
    def compression(self) -> Compression:
        """The compression that the last suffix of the name says."""
        return _COMPRESSIONS.get(os.path.splitext(self.path)[1].lower(), "")  # noqa: PTH122

    @property
    def suffix(self) -> str:
        """The suffix before that of a compression, in lower case, such as ".jsonl"."""
        # No Path objects: these take most of the time where a corpus has many files.
        name, suffix = os.path.splitext(self.path)  # noqa: PTH122
        return (os.path.splitext(name)[1] if self.compression else suffix).lower()  # noqa: PTH122

    @property
    def expected_text_bytes(self) -> int:
        """An estimate of the size of the text, for dividing the work."""
        packed = 2 if self.suffix == ".parquet" else _EXPANSION[self.compression]
        return self.num_bytes * packed

    def is_unchanged(self) -> bool:
        """Return whether the file still has the size and the time that it had when it was found."""
        try:
            status = os.stat(self.path)  # noqa: PTH116 - no Path object for each of many files
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.num_bytes, self.mtime_ns)


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
PassOver = Callable[[str, str], None]
"""Is told of what is no file to read: where it is, and what it is."""


_REPORT_SECONDS = 0.2


def _pass_over_silently(_where: str, _reason: str) -> None:
    pass


def find_files(
    inputs: Iterable[Path | str],
    *,
    follow_links: bool = False,
    pass_over: PassOver = _pass_over_silently,
    on_found: Callable[[int], None] | None = None,
) -> list[CorpusFile]:
    """Find all files of the inputs: each input in its turn, a folder's files sorted by name.

    Folders are read recursively without hidden files. Of a dataset folder that the `datasets`
    library saved, only the data files are taken. Links in a folder are followed to files within it.

    Args:
        inputs: Files and folders.
        follow_links: Follow links that lead out of their folder, and links to folders, too.
        pass_over: Is told of links that are not followed or lead nowhere, and of pipes, devices
            and folders that are too deep.
        on_found: Is told now and then how many files there are so far.

    Raises:
        DocumentError: An input is missing, is no file or folder, or gives a file once more.
    """
    files: list[CorpusFile] = []
    seen: dict[tuple[int, int], str] = {}
    links: list[int] = []
    last_report = time.monotonic()
    for given in inputs:
        for path, is_link in _files_of(str(given), follow_links, pass_over):
            status = os.stat(path)  # noqa: PTH116 - no Path object for each of many files
            identity = status.st_dev, status.st_ino
            if is_link:
                links.append(len(files))
            elif identity in seen:
                raise DocumentError(
                    f"{path}: the same file as {seen[identity]}; name each file once"
                )
            else:
                seen[identity] = path
            files.append(
                CorpusFile(
                    path=path,
                    input=str(given),
                    num_bytes=status.st_size,
                    mtime_ns=status.st_mtime_ns,
                )
            )
            if on_found and time.monotonic() - last_report > _REPORT_SECONDS:
                last_report = time.monotonic()
                on_found(len(files))
    return _without_copies(files, links, seen, pass_over)


def _without_copies(
    files: list[CorpusFile],
    links: Sequence[int],
    seen: dict[tuple[int, int], str],
    pass_over: PassOver,
) -> list[CorpusFile]:
    """Leave out links to files that are read anyway."""
    copies = set()
    for place in links:
        path = files[place].path
        status = os.stat(path)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:
            pass_over(path, "link to a file that is read already")
            copies.add(place)
        seen[status.st_dev, status.st_ino] = path
    return [file for place, file in enumerate(files) if place not in copies]


def _files_of(path: str, follow_links: bool, pass_over: PassOver) -> Iterator[tuple[str, bool]]:
    """The files of one input, and whether each was found through a link."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            raise DocumentError(f"{path}: {error.strerror}; give files that you can read") from None
        path = path or "an empty path"
        raise DocumentError(f"{path}: no such file or folder; {_nearest(Path(path))}") from None
    if stat.S_ISREG(mode):
        yield path, False
    elif stat.S_ISDIR(mode):
        yield from _FolderWalk(path, follow_links, pass_over)
    else:
        raise DocumentError(f"{path}: neither a file nor a folder; give local files or folders")


def _nearest(path: Path) -> str:
    """Say what to do about a path that does not exist."""
    if _ADDRESS.match(str(path)):
        return "files at an address are read after a download alone: download it"
    if any(mark in path.name for mark in "*?["):
        return f"patterns are not expanded here: give the folder {path.parent}"
    try:
        near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1, cutoff=0.75)  # noqa: PTH208
    except OSError:
        return f"there is no folder {path.parent} either"
    return f"did you mean {path.parent / near[0]}?" if near else "give local files or folders"


class _FolderWalk:
    """The files below a folder, in the order of their names, however deep it is."""

    def __init__(self, folder: str, follow_links: bool, pass_over: PassOver) -> None:
        self._folder, self._follow_links, self._pass_over = folder, follow_links, pass_over
        self._inside = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118
        self._entered: set[tuple[int, int]] = set()

    def __iter__(self) -> Iterator[tuple[str, bool]]:
        waiting: list[tuple[str, os.DirEntry[str] | None]] = [(self._folder, None)]
        while waiting:
            path, entry = waiting.pop()
            if entry is None:
                waiting += reversed(self._within(path))
            elif entry.is_symlink():
                if self._is_followed(path):
                    yield path, True
                elif self._is_entered(path):
                    waiting.append((path, None))
            elif entry.is_file(follow_symlinks=False):
                yield path, False
            elif entry.is_dir(follow_symlinks=False):
                waiting.append((path, None))
            else:
                self._pass_over(path, "no regular file")

    def _within(self, folder: str) -> list[tuple[str, os.DirEntry[str] | None]]:
        """What is in a folder, by path; all but the data files of a saved dataset are left out."""
        entries = {entry.name: entry for entry in self._entries(folder)}
        if "state.json" in entries and "dataset_info.json" in entries:
            names = [path.name for path in _files_of_dataset(Path(folder))]
        else:
            names = sorted(entries)
        return [
            (os.path.join(folder, name), entries[name])  # noqa: PTH118
            for name in names
            if not name.startswith(".") and name not in _NO_DATA
        ]

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            if self._follow_links:  # a link may lead back to a folder that it lies in
                status = os.stat(folder)  # noqa: PTH116
                if (status.st_dev, status.st_ino) in self._entered:
                    self._pass_over(folder, "folder that is read already")
                    return []
                self._entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                return list(entries)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                self._pass_over(folder, "folder that is too deep")
                return []
            raise DocumentError(
                f"{folder}: cannot be read: {error.strerror}; make it readable or move it away"
            ) from None

    def _is_followed(self, path: str) -> bool:
        """Whether a link leads to a file that may be read."""
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116
        except OSError:
            self._pass_over(path, "link that leads nowhere")
            return False
        if stat.S_ISDIR(mode):
            if not self._follow_links:
                self._pass_over(path, "link to a folder")
            return False
        if not stat.S_ISREG(mode):
            self._pass_over(path, "no regular file")
            return False
        if self._follow_links or os.path.realpath(path).startswith(self._inside):
            return True
        self._pass_over(path, "link that leaves the folder")
        return False

    def _is_entered(self, path: str) -> bool:
        return self._follow_links and os.path.isdir(path)  # noqa: PTH112


def _files_of_dataset(folder: Path) -> Iterator[Path]:
    """Return the data files of a saved dataset; its other files are caches."""
    state = folder / "state.json"
    try:
        names = [entry["filename"] for entry in read_json(state, DocumentError)["_data_files"]]
    except (DocumentError, KeyError, TypeError):
        raise DocumentError(
            f"{state}: does not belong to a saved dataset; save the dataset again"
        ) from None
    for name in names:
        if not (folder / name).is_file():
            raise DocumentError(f"{folder / name}: missing, though {state.name} lists it")
        yield folder / name


class UnpackedStream(io.BufferedReader):
    """The unpacked bytes of a file; `bytes_done` is the position in the packed file."""

    def __init__(self, packed: BinaryIO, unpacked: Any) -> None:
        super().__init__(unpacked, _BUFFER_BYTES)
        self._packed = packed

    @property
    def bytes_done(self) -> int:
        """The position in the packed file."""
        return self._packed.tell()


@contextmanager
def open_unpacked(file: CorpusFile, encoding: str | None = None) -> Iterator[UnpackedStream]:
    """Open a file for reading its unpacked bytes; those of a text are UTF-8 without a mark.

    Reading raises EOFError, OSError, zlib.error, lzma.LZMAError or zstandard.ZstdError when the
    packed bytes are truncated or broken, and UnicodeDecodeError when they are no text of the
    encoding, unless that is UTF-8.

    Args:
        file: The open file.
        encoding: Of the text; None for UTF-8, unless a byte order mark tells of UTF-16 or UTF-32.
    """
    with Path(file.path).open("rb") as packed:
        unpacked = _UNPACKERS[file.compression](packed)
        stream = UnpackedStream(packed, unpacked)
        found = encoding or encoding_of(stream.peek(4))
        if found is not None and codecs.lookup(found).name != "utf-8":
            stream = UnpackedStream(packed, _Recoded(stream, found))
        with stream:
            yield stream


def encoding_of(beginning: bytes) -> str | None:
    """Return the encoding that a byte order mark says; None without one, or for UTF-8."""
    return next((name for mark, name in _MARKS.items() if beginning.startswith(mark)), None)


# UTF-32's first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class _Recoded(io.RawIOBase):
    """Text of another encoding as UTF-8."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = b""

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            content = self._stream.read(_BUFFER_BYTES)
            text = self._decoder.decode(content, final=not content)
            self._ready = text.encode(errors="surrogatepass")
            if not content:
                break
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


class _Frames(io.RawIOBase):
    """Packed frames one after another; a truncated one is an error, not an end.

    Args:
        packed: The compressed file, open at its beginning.
        begin: Makes what unpacks a frame.
    """

    def __init__(self, packed: BinaryIO, begin: Callable[[], Any]) -> None:
        self._packed, self._begin = packed, begin
        self._frame = begin()
        self._unread = b""
        self._ready = memoryview(b"")
        self._inside = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._unpack():
                return 0
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _unpack(self) -> bool:
        content = self._unread or self._packed.read(_FRAME_BYTES)
        self._unread = b""
        if not self._inside:  # zeros may stand between frames of xz
            while content and not (content := content.lstrip(b"\0")):
                content = self._packed.read(_FRAME_BYTES)
        if not content:
            if self._inside:
                raise EOFError("the compressed file ends inside a frame")
            return False
        self._inside = True
        self._ready = memoryview(self._frame.decompress(content))
        if self._frame.eof:
            self._unread = self._frame.unused_data
            self._frame = self._begin()
            self._inside = False
        return True


def _unpack_zstandard(packed: BinaryIO) -> _Frames:
    zstandard = import_extra("zstandard")
    # Wide windows (zstd --long) are read too, but no wider than a file of this size can use.
    size = os.fstat(packed.fileno()).st_size
    widest = min(max(_UNPACKING_BYTES, size * _EXPANSION["zst"]), 1 << 31)
    return _Frames(packed, zstandard.ZstdDecompressor(max_window_size=widest).decompressobj)


def _unpack_xz(packed: BinaryIO) -> _Frames:
    return _Frames(packed, lambda: lzma.LZMADecompressor(memlimit=_UNPACKING_BYTES))


_UNPACKERS: dict[Compression, Callable[[BinaryIO], Any]] = {
    "": lambda packed: packed,
    "gz": lambda packed: gzip.GzipFile(fileobj=packed, mode="rb"),
    "xz": _unpack_xz,
    "zst": _unpack_zstandard,
}
