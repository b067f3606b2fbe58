"""Reading documents: every format, and every way in which a file can be bad."""

import gzip
import json
import lzma
import os
import re
import resource
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather, ipc, parquet

from modernbert.data import records
from modernbert.data.corpus_files import find_files
from modernbert.data.documents import Document, DocumentReader, Skipped, read_file
from modernbert.data.records import Reading, RecordRules
from modernbert.data.rows import formats, json_files, plain_text
from modernbert.data.settings import FileSettings
from modernbert.errors import DocumentError, SettingsError

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read(*inputs: Path, **options: bool | str) -> tuple[list[str], Skipped]:
    reader = DocumentReader(inputs, **options)  # type: ignore[arg-type]
    return [document.text for document in reader], reader.skipped


def lines(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write


MakeFile = Callable[[str, bytes], Path]


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("name", ["notes.txt", "README.md", "run.py", "Makefile"])
def test_text_file_is_one_document(file: MakeFile, name: str, packing: str) -> None:
    path = file(name + packing, PACKERS[packing]("Ein Wört\r\n\nzwei\n".encode()))
    assert list(DocumentReader([path])) == [Document("Ein Wört\r\n\nzwei\n", str(path), 0)]


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "A.JSONL"])
def test_json_lines_are_a_document_each(file: MakeFile, name: str, packing: str) -> None:
    path = file(name + packing, PACKERS[packing](lines("one", "zwö", "3\n3")))
    assert list(DocumentReader([path])) == [
        Document("one", str(path), 0),
        Document("zwö", str(path), 1),
        Document("3\n3", str(path), 2),
    ]


def test_packed_members_one_after_another(file: MakeFile) -> None:
    for packing, pack in PACKERS.items():
        path = file("a.jsonl" + packing, pack(lines("a")) + pack(lines("b", "c")))
        assert read(path)[0] == ["a", "b", "c"]


def test_byte_order_mark_is_no_text(file: MakeFile) -> None:
    assert read(file("a.txt", b"\xef\xbb\xbfabc"))[0] == ["abc"]
    assert read(file("a.jsonl", b"\xef\xbb\xbf" + lines("abc")))[0] == ["abc"]


def test_other_text_field_and_last_line_without_end(file: MakeFile) -> None:
    path = file("a.jsonl", b'\n{"body": "x", "text": "y"}\n   \n{"body": "z"}')
    assert read(path, text_field="body")[0] == ["x", "z"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b'id,text\n1,one\n2,"zw\xc3\xb6,\nlang"\n'),
        ("a.tsv", b'id\ttext\n1\tone\n2\t"zw\xc3\xb6,\nlang"\n'),
        ("a.csv", "id;text\n1;one\n2;'zwö,\nlang'\n".replace("'", '"').encode("utf-16")),
        ("a.json", b'[{"text": "one"},\n {"text": "zw\xc3\xb6,\\nlang"}]'),
        ("a.jsonl", '{"text": "one"}\n{"text": "zwö,\\nlang"}\n'.encode("utf-16")),
    ],
)
@pytest.mark.parametrize("packing", PACKERS)
def test_rows_of_tables_are_a_document_each(
    file: MakeFile, name: str, content: bytes, packing: str
) -> None:
    path = file(name + packing, PACKERS[packing](content))
    assert list(DocumentReader([path])) == [
        Document("one", str(path), 0),
        Document("zwö,\nlang", str(path), 1),
    ]


def test_bad_rows_of_a_table_are_skipped_alone(file: MakeFile) -> None:
    path = file("a.csv", b"text,n\none,1\ntwo\n,3\nfour,4\n")
    texts, skipped = read(path)
    assert texts == ["one", "four"]
    assert skipped.counts == {"broken quotation marks or columns": 1, "empty": 1}


def test_text_of_an_encoding_that_is_named(file: MakeFile) -> None:
    path = file("a.txt", "naïve".encode("latin-1"))
    assert read(path)[1].counts == {"invalid UTF-8": 1}
    reader = DocumentReader([path], settings=FileSettings(encoding="latin-1"))
    assert [document.text for document in reader] == ["naïve"]
    assert read(file("b.txt", "naïve".encode("utf-16")))[0] == ["naïve"]
    with pytest.raises(SettingsError, match="encoding: got 'latin-99', which Python does not know"):
        FileSettings(encoding="latin-99")


def test_an_arrow_file_that_lies_about_its_offsets_is_refused(tmp_path: Path) -> None:
    """Read unchecked, it would read memory that is none of its own."""
    path = tmp_path / "a.arrow"
    table = pyarrow.table({"text": ["a", "bc"]})
    with ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)
    offsets = struct.pack("<3i", 0, 1, 3)
    assert path.read_bytes().count(offsets) == 1
    path.write_bytes(path.read_bytes().replace(offsets, struct.pack("<3i", 0, 1 << 28, 1 << 28)))
    assert read(tmp_path / "a.arrow")[1].counts == {"truncated or unreadable": 1}


def test_parquet(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(1000)]
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"id": range(1000), "text": texts})
    parquet.write_table(table, path, row_group_size=300)
    found = list(DocumentReader([path]))
    assert [document.text for document in found] == texts
    assert [document.index for document in found] == list(range(1000))


@pytest.mark.parametrize(
    "text_type",
    [pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())],
)
def test_parquet_of_other_string_types(tmp_path: Path, text_type: pyarrow.DataType) -> None:
    column = pyarrow.array(["a", None, "b"]).cast(text_type)
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    texts, skipped = read(tmp_path / "a.parquet")
    assert texts == ["a", "b"]
    assert skipped.examples == [f"{tmp_path / 'a.parquet'}, row 2: no field 'text'"]


@pytest.mark.parametrize("text_type", [pyarrow.string(), pyarrow.large_string()])
def test_one_long_text_that_many_rows_of_parquet_name(
    tmp_path: Path, text_type: pyarrow.DataType
) -> None:
    """The file has some kilobytes; written out, 256 rows of it would take a gigabyte."""
    rows = pyarrow.array(np.zeros(512, np.int32))
    many = pyarrow.DictionaryArray.from_arrays(rows, pyarrow.array(["a" * (4 << 20)], text_type))
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": many}), path, compression="zstd")
    assert path.stat().st_size < 10_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    num_documents = sum(1 for _ in DocumentReader([path]))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert num_documents == 512 and grown < 400_000  # kilobytes


def test_a_changed_page_of_parquet_is_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": ["a text", "another"]})
    parquet.write_table(
        table, path, compression="none", use_dictionary=False, write_page_checksum=True
    )
    mark = b"\x07\0\0\0"  # the length of a text stands before it
    path.write_bytes(path.read_bytes().replace(mark + b"another", mark + b"anither"))
    assert read(path)[1].counts == {"truncated or unreadable": 1}


def save_dataset(folder: Path, *parts: list[str]) -> None:
    """A folder as the `datasets` library saves it."""
    folder.mkdir(parents=True)
    names = []
    for number, texts in enumerate(parts):
        names.append(f"data-{number:05d}-of-{len(parts):05d}.arrow")
        table = pyarrow.table({"text": texts})
        with (
            pyarrow.OSFile(str(folder / names[-1]), "wb") as sink,
            ipc.new_stream(sink, table.schema) as stream,
        ):
            stream.write_table(table, max_chunksize=2)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": name} for name in names]})
    )


def test_saved_dataset(tmp_path: Path) -> None:
    save_dataset(tmp_path / "set", ["a", "b", "c"], ["d"])
    (tmp_path / "set" / "cache-0123.arrow").write_bytes(b"not to be read")
    assert read(tmp_path / "set") == (["a", "b", "c", "d"], Skipped())


def test_saved_dataset_with_splits(tmp_path: Path) -> None:
    save_dataset(tmp_path / "set" / "train", ["a", "b"])
    save_dataset(tmp_path / "set" / "test", ["c"])
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert read(tmp_path / "set") == (["c", "a", "b"], Skipped())


def test_saved_dataset_that_misses_a_file(tmp_path: Path) -> None:
    save_dataset(tmp_path / "set", ["a"], ["b"])
    (tmp_path / "set" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DocumentError, match=r"data-00001-of-00002\.arrow: missing"):
        read(tmp_path / "set")


def test_arrow_file_with_footer(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["a", "b"]})
    with ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    assert read(tmp_path / "a.arrow")[0] == ["a", "b"]


def test_folders_are_read_sorted_and_without_hidden_files(file: MakeFile, tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.py", "a/b/c.md", "c.txt", ".git/config", "a/.hidden"):
        file(f"corpus/{name}", name.encode())
    file("corpus/picture.png", b"\x89PNG\0\0")
    texts, skipped = read(tmp_path / "corpus")
    assert texts == ["a/b/c.md", "a/z.py", "b.txt", "c.txt"]
    assert skipped.counts == {"binary": 1}


def test_same_file_twice(file: MakeFile, tmp_path: Path) -> None:
    path = file("corpus/a.txt", b"a")
    with pytest.raises(DocumentError, match=r"the same file as .*a\.txt; name each file once"):
        DocumentReader([tmp_path / "corpus", path])


@pytest.mark.parametrize("name", ["nowhere", "nowhere/a.txt"])
def test_missing_input(tmp_path: Path, name: str) -> None:
    with pytest.raises(DocumentError, match="no such file or folder"):
        DocumentReader([tmp_path / name])


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("https://example.org/a.jsonl", "download it"),
        ("s3://bucket/a.jsonl", "download it"),
        ("corpus/*.txt", "give the folder corpus"),
        ("", "give local files or folders"),
    ],
)
def test_what_is_no_path(name: str, remedy: str) -> None:
    with pytest.raises(DocumentError, match=rf": no such file or folder; .*{remedy}$"):
        DocumentReader([name])


def test_frames_as_pandas_writes_them_into_json(file: MakeFile) -> None:
    by_column = file("a.json", b'{"text": {"0": "a", "1": "b"}, "id": {"0": 1, "1": 2}}')
    split = file("b.json", b'{"columns": ["text"], "index": [0, 1], "data": [["a"], ["b"]]}')
    assert read(by_column)[0] == read(split)[0] == ["a", "b"]


def test_what_programs_put_beside_their_files(file: MakeFile, tmp_path: Path) -> None:
    feather.write_feather(pyarrow.table({"text": ["a"]}), str(tmp_path / "a.feather"))
    file("_SUCCESS", b"")
    file("_metadata", b"PAR1")
    texts, skipped = read(tmp_path)
    assert (texts, skipped.total) == (["a"], 0)


def test_folder_that_cannot_be_read(
    file: MakeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    file("corpus/a.txt", b"a")
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DocumentError, match="corpus: cannot be read: Permission denied; make it"):
        DocumentReader([tmp_path / "corpus"])


def test_pipe_is_no_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DocumentError, match="neither a file nor a folder"):
        DocumentReader([tmp_path / "pipe"])


TAR = b"a.txt".ljust(257, b"\0") + b"ustar" + bytes(250)
BAD_FILES = [
    ("a.txt", b"", "a.txt: empty"),
    ("a.jsonl", b"", "a.jsonl: empty"),
    ("a.txt", b"ab\0cd", "a.txt: binary"),
    ("a.jsonl", b"ab\0cd\n", "a.jsonl: binary"),
    ("a.txt", b"abc\xff", "a.txt: invalid UTF-8"),
    ("a.txt", b" \n\n", "a.txt: empty"),
    ("a.pdf", b"%PDF-1.4\n", "a.pdf: binary \\(looks like PDF"),
    ("a.tar.gz", gzip.compress(TAR, mtime=0), "a.tar.gz: binary \\(looks like a tar archive"),
    ("a.jsonl", b'[{"text": "x"}]', "a.jsonl, line 1: not a JSON object \\(the file is one JSON"),
    ("a.jsonl", b"{\n", "a.jsonl, line 1: broken JSON \\(the file is one JSON value"),
    ("a.jsonl", b'{"body": "x"}', "a.jsonl, line 1: no field 'text' \\(fields are body"),
    ("a.json", b'{\n "text": "x"\n', "a.json: broken JSON"),
    ("a.json", b'{"name": "a package"}', "a.json, row 1: no field 'text'"),
    ("a.csv", b"", "a.csv: empty"),
    ("a.csv", b"text\nab\0cd\n", "a.csv: binary"),
    ("a.csv", b"body,n\nab,1\n", "a.csv: no column 'text'"),
    ("a.csv", b'text,n\n"ab,1\n', "a.csv, line 2: "),
    ("a.csv", b"text,n\n\xe9t\xe9,1\n", "a.csv, line 2: invalid UTF-8"),
    ("a.parquet", b"PAR1 and then nothing", "a.parquet: truncated or unreadable"),
    ("a.arrow", b"nothing of the kind", "a.arrow: truncated or unreadable"),
    ("a.parquet.gz", gzip.compress(b"abc", mtime=0), "a.parquet.gz: truncated or unreadable"),
    ("a.txt.gz", b"never packed", "a.txt.gz: truncated or unreadable"),
    ("a.txt.xz", b"never packed", "a.txt.xz: truncated or unreadable"),
    ("a.txt.zst", b"never packed", "a.txt.zst: truncated or unreadable"),
    ("a.txt.gz", gzip.compress(b"ab\0cd", mtime=0), "a.txt.gz: binary"),
]


@pytest.mark.parametrize(("name", "content", "told"), BAD_FILES)
def test_bad_file_is_skipped_or_stops(
    file: MakeFile, name: str, content: bytes, told: str, tmp_path: Path
) -> None:
    file(name, content)
    file("good.txt", b"good")
    texts, skipped = read(tmp_path)
    assert texts == ["good"]
    assert skipped.total == 1
    assert re.match(str(tmp_path / told), skipped.examples[0])
    with pytest.raises(DocumentError, match=f"^{tmp_path / told}"):
        read(tmp_path, strict=True)


BAD_LINES = [
    (b'{"text": "x"', "broken JSON"),
    (b"{'text': 'x'}", "broken JSON"),
    (b"[" * 100_000, "broken JSON"),
    (b'["x"]', "not a JSON object"),
    (b'{"texts": "x"}', "no field 'text'"),
    (b'{"text": null}', "no field 'text'"),
    (b'{"text": 3}', "text is not a string"),
    (b'{"text": ""}', "empty"),
    (rb'{"text": "\n \n"}', "empty"),
    (b'{"text": "\xe4"}', "invalid UTF-8"),
    (rb'{"text": "x\ud800y"}', "lone surrogate"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_bad_line_is_skipped_or_stops(file: MakeFile, line: bytes, reason: str) -> None:
    path = file("a.jsonl", lines("before") + line + b"\n" + lines("after"))
    texts, skipped = read(path)
    assert texts == ["before", "after"]
    assert skipped.counts == {reason: 1}
    assert [x.partition(" (")[0] for x in skipped.examples] == [f"{path}, line 2: {reason}"]
    with pytest.raises(DocumentError, match="line 2: "):
        read(path, strict=True)


@pytest.mark.parametrize("packing", [".gz", ".xz", ".zst"])
def test_truncated_packing_keeps_what_came_before(file: MakeFile, packing: str) -> None:
    texts = [os.urandom(500).hex() for _ in range(600)]
    whole = PACKERS[packing](lines(*texts))
    path = file("a.jsonl" + packing, whole[: len(whole) * 2 // 3])
    found, skipped = read(path)
    assert 0 < len(found) < len(texts)
    assert found == texts[: len(found)]
    assert skipped.counts == {"truncated or unreadable": 1}
    with pytest.raises(DocumentError, match="truncated or unreadable"):
        read(path, strict=True)


def test_unreadable_file(file: MakeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file("a.txt", b"abc")

    def refuse(*_: object) -> Iterator[Document]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(formats._TEXT_READERS, "document", refuse)
    assert read(path)[1].counts == {"truncated or unreadable": 1}


def test_parquet_without_the_column(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"content": ["a"]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[1].examples == [
        f"{tmp_path / 'a.parquet'}: no column 'text' (columns are content)"
    ]
    assert read(tmp_path / "a.parquet", text_field="content")[0] == ["a"]


def test_parquet_with_bytes_that_are_no_text(tmp_path: Path) -> None:
    column = pyarrow.array([b"a", b"\xff", "ö".encode()], pyarrow.binary())
    bad = pyarrow.Array.from_buffers(pyarrow.string(), 3, column.buffers())
    parquet.write_table(pyarrow.table({"text": bad}), tmp_path / "a.parquet")
    texts, skipped = read(tmp_path / "a.parquet")
    assert texts == ["a", "ö"]
    assert skipped.counts == {"invalid UTF-8": 1}


def test_parquet_with_numbers(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"text": [1, 2]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[1].counts == {"text is not a string": 2}


@settings(deadline=None, max_examples=60)
@given(
    content=st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), max_size=200),
    limit=st.integers(8, 50),
)
def test_large_text_file_is_split_without_loss(
    tmp_path_factory: pytest.TempPathFactory, content: str, limit: int
) -> None:
    path = tmp_path_factory.mktemp("large") / "a.txt"
    path.write_bytes(content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_text, "MAX_TEXT_BYTES", limit)
        texts, skipped = read(path)
    assert "".join(texts) == content
    assert all(len(text.encode()) <= limit for text in texts)
    assert skipped.num_split_files == (len(content.encode()) >= limit)


def test_large_text_file_is_split_at_line_ends(
    file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_text, "MAX_TEXT_BYTES", 10)
    path = file("a.txt", b"one\ntwo\nthree\nfour")
    texts, skipped = read(path)
    assert texts == ["one\ntwo\n", "three\n", "four"]
    assert (
        str(skipped)
        == f"1 text files over {records.MAX_TEXT_BYTES >> 20} MB were split at line ends"
    )


def test_very_long_line_is_skipped_whole(file: MakeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "MAX_LINE_BYTES", 40)
    path = file("a.jsonl", lines("a", "b" * 100, "c", "d" * 200))
    texts, skipped = read(path)
    assert texts == ["a", "c"]
    assert [example.split(": ")[0] for example in skipped.examples] == [
        f"{path}, line 2",
        f"{path}, line 4",
    ]


@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(st.text(max_size=12), max_size=12),
    width=st.integers(1, 80),
    bad_line=st.booleans(),
)
def test_ranges_of_lines_meet_without_gap_or_overlap(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], width: int, bad_line: bool
) -> None:
    path = tmp_path_factory.mktemp("ranges") / "a.jsonl"
    texts = ["first", *(f"x{text.encode(errors='replace').decode()}" for text in texts)]
    content = lines(*texts) + b"broken" * bad_line
    path.write_bytes(content)
    (file,) = find_files([path])
    skipped = Skipped()
    found = []
    for start in range(0, len(content), width):
        reading = Reading(
            file=file, rules=RecordRules(skipped=skipped), start=start, stop=start + width
        )
        found += [document.text for document in read_file(reading)]
    assert found == texts
    assert skipped.examples == [f"{path}, line {len(texts) + 1}: broken JSON"] * bad_line


def test_report_keeps_the_first_examples_only(file: MakeFile) -> None:
    path = file("a.jsonl", b"bad\n" * 100 + lines("x"))
    skipped = read(path)[1]
    assert (skipped.total, len(skipped.examples)) == (100, 5)
    assert str(skipped) == f"100 skipped (100 broken JSON), first {path}, line 1: broken JSON"
    skipped.update(skipped)
    assert (skipped.total, len(skipped.examples)) == (200, 5)


def test_real_reviews(shared_data: Path) -> None:
    texts, skipped = read(shared_data / "reviews" / "dev.jsonl.xz")
    assert (len(texts), skipped.total) == (1000, 0)
