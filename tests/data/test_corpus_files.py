"""The files of a corpus: links, pipes, devices and depth are counted, and nothing is waited for."""

import lzma
import os
import struct
from pathlib import Path

import pytest

from modernbert.data import corpus_files
from modernbert.data.corpus_files import CorpusFile, find_files, open_unpacked
from modernbert.data.documents import DocumentReader
from modernbert.errors import DocumentError


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text("a text")
    (folder / "inner" / "b.txt").write_text("b text")
    return folder


def found(folder: Path, *, follow_links: bool = False) -> tuple[list[str], dict[str, str]]:
    """The names of the files that are read, and what was passed over by name."""
    passed: dict[str, str] = {}

    def pass_over(where: str, reason: str) -> None:
        passed[os.path.relpath(where, folder)] = reason

    files = find_files([folder], follow_links=follow_links, pass_over=pass_over)
    return [os.path.relpath(file.path, folder) for file in files], passed


def test_pipes_devices_and_dangling_links_are_named(corpus: Path) -> None:
    os.mkfifo(corpus / "pipe.txt")
    (corpus / "device.txt").symlink_to("/dev/zero")
    (corpus / "nowhere.txt").symlink_to(corpus / "gone")
    (corpus / "circle.txt").symlink_to(corpus / "circle.txt")
    names, passed = found(corpus)
    assert names == ["a.txt", "inner/b.txt"]
    assert passed == {
        "pipe.txt": "no regular file",
        "device.txt": "no regular file",
        "nowhere.txt": "link that leads nowhere",
        "circle.txt": "link that leads nowhere",
    }
    assert found(corpus, follow_links=True) == (names, passed)


def test_links_that_leave_the_folder_are_followed_on_request(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("not for the model")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "c.txt").write_text("c text")
    (corpus / "out.txt").symlink_to(tmp_path / "secret.txt")
    (corpus / "other").symlink_to(tmp_path / "other")
    names, passed = found(corpus)
    assert names == ["a.txt", "inner/b.txt"]
    assert passed == {"out.txt": "link that leaves the folder", "other": "link to a folder"}
    names, passed = found(corpus, follow_links=True)
    assert names == ["a.txt", "inner/b.txt", "other/c.txt", "out.txt"] and passed == {}


def test_a_loop_of_links_ends(corpus: Path) -> None:
    (corpus / "inner" / "up").symlink_to(corpus)
    names, passed = found(corpus, follow_links=True)
    assert names == ["a.txt", "inner/b.txt"]
    assert passed == {"inner/up": "folder that is read already"}
    assert found(corpus) == (names, {"inner/up": "link to a folder"})


def test_a_link_to_a_file_of_the_corpus_is_not_read_twice(corpus: Path) -> None:
    (corpus / "0.txt").symlink_to(corpus / "a.txt")
    names, passed = found(corpus)
    assert names == ["a.txt", "inner/b.txt"]
    assert passed == {"0.txt": "link to a file that is read already"}
    (corpus / "hidden").mkdir()
    (corpus / ".d.txt").write_text("d text")
    (corpus / "d.txt").symlink_to(corpus / ".d.txt")
    assert found(corpus)[0] == ["a.txt", "d.txt", "inner/b.txt"]


def test_folders_a_thousand_deep(corpus: Path) -> None:
    before = Path.cwd()
    os.chdir(corpus)
    try:
        for _ in range(1500):
            Path("deep").mkdir()
            os.chdir("deep")
        Path("c.txt").write_text("c text")
    finally:
        os.chdir(before)
    names, passed = found(corpus)
    assert names == ["a.txt", "inner/b.txt"] and list(passed.values()) == [
        "folder that is too deep"
    ]
    moved = corpus / Path(*["deep"] * 750)
    moved.rename(corpus / "half")  # a folder 750 deep that is within what the system takes
    assert [Path(name).name for name in found(corpus)[0]] == ["a.txt", "c.txt", "b.txt"]


def test_what_is_passed_over_is_counted_and_stops_a_strict_reader(corpus: Path) -> None:
    os.mkfifo(corpus / "pipe.txt")
    reader = DocumentReader([corpus])
    assert len(list(reader)) == 2 and reader.skipped.counts == {"no regular file": 1}
    with pytest.raises(DocumentError, match=r"pipe.txt: no regular file"):
        DocumentReader([corpus], strict=True)


def test_an_xz_header_that_asks_for_gigabytes_is_a_broken_file(tmp_path: Path) -> None:
    """The dictionary's size is one byte of the block's header, which has a checksum of its own."""
    packed = bytearray(lzma.compress(b"text\n", filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}]))
    assert packed[14:16] == b"\x21\x01"  # LZMA2, one byte of properties
    packed[16] = 40  # 4 GiB
    packed[20:24] = struct.pack("<I", _crc32(bytes(packed[12:20])))
    path = tmp_path / "a.txt.xz"
    path.write_bytes(packed)
    reader = DocumentReader([path])
    assert list(reader) == []
    assert reader.skipped.total == 1 and "emory" in reader.skipped.examples[0]


def test_several_streams_of_xz_with_padding(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.xz"
    path.write_bytes(lzma.compress(b"one\n") + bytes(8) + lzma.compress(b"two\n" * 9000) + bytes(4))
    file = CorpusFile(path=str(path), input=str(path), num_bytes=0, mtime_ns=0)
    with open_unpacked(file) as stream:
        assert stream.read() == b"one\n" + b"two\n" * 9000
    path.write_bytes(path.read_bytes()[:-40])
    with open_unpacked(file) as stream, pytest.raises(EOFError):
        stream.read()


def _crc32(content: bytes) -> int:
    import zlib

    return zlib.crc32(content)


def test_how_many_files_there_are_is_told_while_they_are_found(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_files, "_REPORT_SECONDS", -1.0)
    told: list[int] = []
    find_files([corpus], on_found=told.append)
    assert told == [1, 2]
