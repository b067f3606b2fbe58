"""Labelled data of every kind of file, equal whatever the kind."""

import csv
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modernbert.data.rows.tables import read_table
from modernbert.data.settings import FileSettings
from modernbert.errors import DocumentError

ROWS = [
    {"text": "a fine, quiet film", "label": "good"},
    {"text": 'it "works"', "label": "good"},
    {"text": "naïve\nand long", "label": "bad"},
]


def write_csv(path: Path, rows: list[dict[str, str]] = ROWS) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_lines(path: Path) -> None:
    text = "".join(json.dumps(row) + "\n\n" for row in ROWS)
    packers: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".zst": zstandard.compress,
    }
    path.write_bytes(packers.get(path.suffix, lambda content: content)(text.encode()))


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS))


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.csv": write_csv,
    "a.jsonl": write_lines,
    "a.jsonl.gz": write_lines,
    "a.jsonl.xz": write_lines,
    "a.NDJSON.zst": write_lines,
    "a.json": write_json,
    "b.json": lambda path: path.write_text(json.dumps({"data": ROWS})),  # type: ignore[dict-item]
    "c.json": write_lines,
    "a.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_all_kinds_give_the_same_rows(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    table = read_table(tmp_path / name)
    assert list(table.rows) == ROWS
    assert table.columns == ("text", "label")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"))))
def test_csv_gives_back_any_text(tmp_path: Path, texts: list[str]) -> None:
    rows = [{"text": text, "label": "x"} for text in [*texts, "last"]]
    write_csv(tmp_path / "a.csv", rows)
    assert list(read_table(tmp_path / "a.csv").rows) == rows


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.text(st.sampled_from('ab;,"\n\t '))))
def test_the_header_tells_what_separates(
    tmp_path: Path, separator: str, quoting: Any, texts: list[str]
) -> None:
    """Whatever stands in the rows, they are read back."""
    rows = [{"text": text, "label": "x"} for text in [*texts, "a; b", "a, b"]]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["text", "label"], delimiter=separator, quoting=quoting)
        writer.writeheader()
        writer.writerows(rows)
    assert list(read_table(tmp_path / "a.csv").rows) == rows


HEADERS = {
    "text;label": ("text", "label"),
    "text,label": ("text", "label"),
    "text,label;score": ("text", "label;score"),  # with a comma, commas separate
    '"text; long",label': ("text; long", "label"),
    '"text, long";label': ("text, long", "label"),
    '"text; long"': ("text; long",),
    "text": ("text",),
}


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_commas_separate_unless_the_header_has_only_semicolons(
    tmp_path: Path, header: str, line_end: str
) -> None:
    columns = HEADERS[header]
    separator = ";" if header in ("text;label", '"text, long";label') else ","
    values = separator.join(['"x; y, z"'] * len(columns))
    (tmp_path / "a.csv").write_bytes(f"{header}{line_end}{values}{line_end}".encode())
    table = read_table(tmp_path / "a.csv")
    assert table.columns == columns
    assert list(table.rows) == [dict.fromkeys(columns, "x; y, z")]


def test_tabs_quote_nothing_and_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b'\xef\xbb\xbftext\tlabel\n"Well", he said\tgood\nit\'s 5" long\tbad\n')
    assert read_table(path).values("text") == ['"Well", he said', "it's 5\" long"]
    assert read_table(path).columns == ("text", "label")


def test_questions_as_squad_has_them(tmp_path: Path) -> None:
    answers = [{"text": "blue", "answer_start": 11}]
    questions = [
        {"id": "1", "question": "What?", "answers": answers},
        {"id": "2", "question": "Who?", "answers": [], "is_impossible": True},
    ]
    paragraph = {"context": "The sky is blue.", "qas": questions}
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    table = read_table(tmp_path / "squad.json")
    assert table.columns == ("id", "question", "context", "answers")
    assert table.values("answers") == [answers, []]
    assert set(table.values("context")) == {"The sky is blue."}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of `datasets`: one split, and two of them, with class labels by name."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("saved")
    features = datasets.Features(
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=["bad", "good"]),
        tags=datasets.Sequence(datasets.ClassLabel(names=["O", "B-X"])),
    )
    columns: dict[str, list[Any]] = {"text": ["a", "b"], "label": [1, -1], "tags": [[0, 1], []]}
    train = datasets.Dataset.from_dict(columns, features=features)
    train.save_to_disk(folder / "one")
    datasets.DatasetDict(train=train, test=train.select([0])).save_to_disk(folder / "two")
    train.to_parquet(str(folder / "labels.parquet"))
    return folder


@pytest.mark.parametrize("name", ["one", "two:train", "labels.parquet"])
def test_saved_data_sets_have_names_for_their_labels(saved: Path, name: str) -> None:
    table = read_table(f"{saved}/{name}")
    assert table.values("label") == ["good", None]
    assert table.values("tags") == [["O", "B-X"], []]


def test_a_split_is_named(saved: Path) -> None:
    assert len(read_table(f"{saved}/two:test")) == 1
    with pytest.raises(DocumentError, match=r"two: names no split; say which, such as .*two:test"):
        read_table(saved / "two")
    with pytest.raises(DocumentError, match=r"two: has no split 'dev'"):
        read_table(f"{saved}/two:dev")


BAD: dict[str, tuple[str, bytes, str]] = {
    "more values": ("a.csv", b"text,label\nx,y\na,b,c\n", r"line 3: has 3 values for 2 columns"),
    "semicolons": ("a.csv", b"text;label\na;b;c\n", "put a text with a semicolon or a line end in"),
    "tabs": ("a.tsv", b"text\tlabel\na\tb\tc\n", "put a text with a tab or a line end in quot"),
    "empty": ("a.csv", b"", "empty; repair it"),
    "no rows": ("a.csv", b"text,label\n", r"has no rows"),
    "twice": ("a.csv", b"text,text\nx,y\n", r"two columns are named 'text'"),
    "latin": ("a.csv", b"text\n\xe9t\xe9\n", "line 2: invalid UTF-8 .*--encoding latin-1"),
    "broken": ("a.jsonl", b'{"text": "a"}\n{"text"\n', "line 2: broken JSON .*at character 9"),
    "a list": ("a.jsonl", b"[1]\n", "line 1: not a JSON object"),
    "numbers": ("a.json", b"[1, 2]", "row 1: not a JSON object"),
    "torn": (
        "a.jsonl.gz",
        gzip.compress(b'{"text": "a"}\n' * 99, mtime=0)[:-9],
        r"truncated or unreadable",
    ),
    "no parquet": ("a.parquet", b"PAR", "truncated or unreadable"),
    "kind": ("a.docx", b"x", r"of an unknown kind; expected .csv"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_cannot_be_read(case: str, tmp_path: Path) -> None:
    name, content, message = BAD[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DocumentError, match=rf"{name}.*{message}"):
        read_table(tmp_path / name)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"missing.csv: no such file or folder"):
        read_table(tmp_path / "missing.csv")
    with pytest.raises(DocumentError, match=r"neither a dataset saved by `datasets`"):
        read_table(tmp_path)


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[tuple[str | None, ...]] = []

    def load_dataset(*arguments: str, revision: str | None) -> Any:
        asked.append((*arguments, revision))
        features = datasets.Features(
            text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"])
        )
        data = datasets.Dataset.from_dict({"text": ["a"], "label": [1]}, features=features)
        return datasets.DatasetDict(train=data, test=data)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **_more: None)
    table = read_table("owner/name/config:train")
    read_table("owner/name@v1.0:test")
    assert asked == [("owner/name", "config", None), ("owner/name", "v1.0")]
    assert list(table.rows) == [{"text": "a", "label": "yes"}]
    with pytest.raises(DocumentError, match=r"^owner/name: names no split"):
        read_table("owner/name")

    def fail(*_: str, **__: None) -> Any:
        raise ConnectionError("no way\nout")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DocumentError, match=r"^a/b: no such file, and no such dataset .*: no way$"):
        read_table("a/b")


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` would ask on for half a minute; what it has on the disk is loaded all the same."""
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": ["a"]})
    cached = {"here/cached": datasets.DatasetDict(train=data)}
    offline: list[bool] = []

    def unreachable(*_: object, **_more: object) -> None:
        raise OSError("name or service not known")

    def load_dataset(name: str, **_: None) -> Any:
        offline.append(datasets.config.HF_HUB_OFFLINE)
        return cached[name]

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    assert list(read_table("here/cached").rows) == [{"text": "a"}]
    with pytest.raises(DocumentError, match=r"^a/b: no such file, .*: name or service not known$"):
        read_table("a/b")
    assert offline == [True, True] and not datasets.config.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('text,label\n"good one,a\nbad,b\n"fine" one,a\n', 2),
        ("text,label\nx,a\n" + 'a 12" record,b\n', 3),
        ("text,label\nx,a\n" + '"never closed,b\n' + "y,a\n" * 1000, 3),
        ('text,label\nx,a\n"two\nlines",a\n"and" more,b\n', 5),
        ('text,label\nx,a\nend",b\n', 3),
    ],
)
def test_a_stray_quotation_mark_is_refused_where_it_stands(
    tmp_path: Path, content: str, line: int
) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DocumentError, match=rf"a\.csv, line {line}: a quotation mark"):
        read_table(tmp_path / "a.csv")


def test_backslashes_escape_where_they_must(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"a \\"b\\" c",x\nC,y\n')
    table = read_table(tmp_path / "a.csv")
    assert table.values("text") == ['a "b" c', "C"]
    assert "escaped by backslashes" in str(table)
    (tmp_path / "a.csv").write_text("text,label\nC:\\new,x\n")
    assert read_table(tmp_path / "a.csv").values("text") == ["C:\\new"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes("text|label\nnaïve|x\n".encode(encoding))
    told = None if encoding in ("utf-8-sig", "utf-16") else encoding
    table = read_table(tmp_path / "a.csv", FileSettings(encoding=told))
    assert list(table.rows) == [{"text": "naïve", "label": "x"}]
    assert "pipe-separated" in str(table)


def test_a_file_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('"3","Stocks fall"\n"1","Talks go on"\n')
    rows = [{"1": "3", "2": "Stocks fall"}, {"1": "1", "2": "Talks go on"}]
    assert list(read_table(tmp_path / "a.csv", FileSettings(header=False)).rows) == rows
    table = read_table(tmp_path / "a.csv", asked=["2", "1"])
    assert list(table.rows) == rows
    assert "no header" in str(table)
    with pytest.raises(DocumentError, match="if the file has no header, pass --no-header and"):
        read_table(tmp_path / "a.csv").find(("text",), asked=None, option="--text")
    (tmp_path / "b.csv").write_text("1,2\nx,y\n")
    assert list(read_table(tmp_path / "b.csv", asked=["1"]).rows) == [{"1": "x", "2": "y"}]


def test_labelled_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("LOC Where is it ?\nNUM How many ?\nLOC Where ?\nNUM When ?\n")
    assert read_table(tmp_path / "a.txt").rows[0] == {"label": "LOC", "text": "Where is it ?"}
    (tmp_path / "b.txt").write_text("__label__a __label__b x y\n__label__a z\n")
    assert list(read_table(tmp_path / "b.txt").rows) == [
        {"label": ["a", "b"], "text": "x y"},
        {"label": ["a"], "text": "z"},
    ]
    (tmp_path / "c.txt").write_text("just\nlines\n")
    with pytest.raises(DocumentError, match="text without labels; write rows of a text and a lab"):
        read_table(tmp_path / "c.txt")


def test_folders_by_label(tmp_path: Path) -> None:
    for name, text in (("pos/1.txt", "good"), ("pos/2.txt", "fine"), ("neg/1.txt", "na\xefve")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(DocumentError, match=r"neg/1\.txt: invalid UTF-8 .*--encoding latin-1"):
        read_table(tmp_path)
    table = read_table(tmp_path, FileSettings(encoding="latin-1"))
    assert table.values("label") == ["neg", "pos", "pos"]
    assert table.values("text") == ["naïve", "good", "fine"]


def test_rows_of_several_lines_are_said(tmp_path: Path) -> None:
    """A stray mark may join rows in a way that is no fault; a person sees it."""
    (tmp_path / "a.csv").write_text('text,label\nx,a\n"y\nz",a\n')
    assert str(read_table(tmp_path / "a.csv")).endswith(
        "1 row of several lines, the first in line 3"
    )


@pytest.mark.parametrize("content", ["sep=;\n", '"sep=;"\r\n', "\ufeffsep=;\n"])
def test_the_line_that_tells_excel_what_separates_is_no_header(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "a.csv").write_text(content + "text;label\na, b;x\n", newline="")
    table = read_table(tmp_path / "a.csv")
    assert list(table.rows) == [{"text": "a, b", "label": "x"}]
    (tmp_path / "a.csv").write_text(content + 'text;label\na "b;x\n', newline="")
    with pytest.raises(DocumentError, match="line 3: a quotation mark"):
        read_table(tmp_path / "a.csv")


def test_blank_lines_before_the_header_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n\ntext|label\na, b; c|x\n")
    assert list(read_table(tmp_path / "a.csv").rows) == [{"text": "a, b; c", "label": "x"}]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\nsize 1\n")
    with pytest.raises(DocumentError, match=rf"{name}: .*pointer of Git LFS .*`git lfs pull`"):
        read_table(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "a,b".encode("utf-16-le"),
            r"binary \(looks like UTF-16; pass --encoding utf-16-le",
        ),
        (
            "a.csv",
            gzip.compress(b"a,b", mtime=0),
            r"binary \(looks like gzip; let its name end in \.gz",
        ),
        ("a.jsonl", b"PK\x03\x04\0\0", "looks like a zip archive or a spreadsheet"),
        ("a.json", b"[[1]]", r"row 1: not a JSON object \(expected one such as"),
        ("a.xlsx", b"PK\x03\x04\0\0", "of an unknown kind; expected .csv"),
    ],
)
def test_files_of_other_kinds_are_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DocumentError, match=message):
        read_table(tmp_path / name)


def test_a_missing_file_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text\na\n")
    with pytest.raises(
        DocumentError, match=r"no such file or folder; did you mean .*/train\.csv\?"
    ):
        read_table(tmp_path / "trian.csv")
    with pytest.raises(DocumentError, match=r"there is no folder .*data either"):
        read_table(tmp_path / "data" / "train.csv")


def test_one_column_alone_is_told_of_the_separators(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text^label\na^b\n")
    table = read_table(tmp_path / "a.csv")
    with pytest.raises(DocumentError, match=r"its only column is 'text.label', as no comma"):
        table.find(["text"], asked=None, option="--text")


def test_columns_without_names_are_told_with_their_first_values(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("fine,good\nsad,bad\n")
    table = read_table(tmp_path / "a.csv", FileSettings(header=False))
    with pytest.raises(DocumentError, match=r"its columns are 1 \('fine'\), 2 \('good'\)$"):
        table.find(["text"], asked=None, option="--text")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/good/a.txt", "train/bad/b.txt", "test/good/a.txt"], "such as .*/test, .*/train$"),
        (["train.csv", "dev.csv"], r"such as .*dev\.csv, .*train\.csv$"),
        (["config.json", "runs/a.txt", "other/b.txt"], "it holds an encoder"),
    ],
)
def test_folders_that_are_not_labels_are_refused(
    tmp_path: Path, files: list[str], message: str
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(DocumentError, match=message):
        read_table(tmp_path)
