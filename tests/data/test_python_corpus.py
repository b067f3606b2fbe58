"""The corpus of the Python installation: nothing held out is seen in training."""

import ast
import json
from pathlib import Path

import pytest

from modernbert.data import python_corpus
from modernbert.data.python_corpus import CorpusFiles, collect_python_corpus
from modernbert.errors import DocumentError


def records_of(paths: tuple[Path, ...]) -> list[dict[str, str]]:
    return [json.loads(line) for path in paths for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusFiles:
    return collect_python_corpus(tmp_path_factory.mktemp("python"))


def test_size_and_share(corpus: CorpusFiles) -> None:
    train, held_out = (
        sum(map(len, map(Path.read_bytes, paths))) for paths in (corpus.train, corpus.held_out)
    )
    assert 5e6 < train < 30e6
    assert 0.01 < held_out / train < 0.12


def test_files_and_their_docstrings_stay_together(corpus: CorpusFiles) -> None:
    train, held_out = records_of(corpus.train), records_of(corpus.held_out)
    assert not {record["source"] for record in train} & {record["source"] for record in held_out}
    assert not {record["text"] for record in train} & {record["text"] for record in held_out}


def test_code_prose_and_topics(corpus: CorpusFiles) -> None:
    texts = {(record["source"], record["text"]) for record in records_of(corpus.train)}
    sources = {source for source, _ in texts}
    assert "topic assert" in sources
    assert {"dataclasses.py", "json/decoder.py"} <= sources
    assert not any(source.startswith(("test/", "site-packages/")) for source in sources)
    assert "encodings/cp1252.py" not in sources
    docstring = ast.get_docstring(ast.parse(Path(ast.__file__).read_text("utf-8")))
    assert ("ast.py", docstring) in texts


def make_library(folder: Path) -> Path:
    sentence = "A sentence that is long enough to be a document of prose by itself. " * 2
    for number in range(100):
        path = folder / f"package{number % 3}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""{number} {sentence}"""\n\ndef f():\n    """{sentence} (shared)"""\n')
    for name, content in {
        "test/test_a.py": b"left_out = 1",
        "site-packages/b.py": b"left_out = 1",
        "_sysconfigdata_x.py": b"left_out = 1",
        "table.py": b"left_out = {\n" + b"'a': 1,\n" * 50 + b"}\n",
        "latin.py": b"# coding: latin-1\nname = '\xe4'\n",
        "broken.py": b"name = '\xe4'\n",
        "old.py": b"print 'no such syntax any more'\n",
        "empty.py": b"",
    }.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return folder


def test_other_library(tmp_path: Path) -> None:
    library = make_library(tmp_path / "library")
    first = collect_python_corpus(tmp_path / "a", library=library)
    second = collect_python_corpus(tmp_path / "b", library=library)
    for one, other in zip(
        first.train + first.held_out, second.train + second.held_out, strict=True
    ):
        assert one.read_bytes() == other.read_bytes()
    records = records_of(first.train + first.held_out)
    code = {record["source"]: record["text"] for record in reversed(records)}
    assert "left_out" not in "".join(code.values())
    assert code["latin.py"] == "# coding: latin-1\nname = 'ä'\n"
    assert "old.py" in code
    assert "broken.py" not in code
    assert "empty.py" not in code
    # One docstring stands in every module: it is held out, and nowhere else.
    shared = [record for record in records if record["text"].endswith("(shared)")]
    assert len(shared) == 1
    assert shared[0] in records_of(first.held_out)


def test_python_without_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = collect_python_corpus(tmp_path / "topics", library=tmp_path / "nowhere")
    assert all(record["source"].startswith("topic ") for record in records_of(files.train))
    monkeypatch.setattr(python_corpus, "_topics", lambda: iter(()))
    with pytest.raises(DocumentError, match="lacks its sources"):
        collect_python_corpus(tmp_path / "nothing", library=tmp_path / "nowhere")
