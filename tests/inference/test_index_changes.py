"""Changing an index: it answers as one that is built anew, and readers see whole changes."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.errors import InputError
from modernbert.hashes import find_faults
from modernbert.inference import index_changes
from modernbert.inference.index import Hit, Index, write_faiss
from modernbert.inference.index_changes import IndexState

DIM = 8
RAGGED = {"float16"}


def document(number: int, kind: str) -> np.ndarray:
    random = np.random.default_rng(number)
    rows = random.normal(size=(1 + number % 3, DIM) if kind in RAGGED else DIM)
    return rows.astype(np.float16).astype(np.float32)


def block(numbers: list[int], kind: str) -> Any:
    rows = [document(number, kind) for number in numbers]
    return rows if kind in RAGGED else np.stack(rows)


def built(folder: Path, numbers: list[int], kind: str = "float32", **options: Any) -> Index:
    names = [f"id {number}" for number in numbers]
    texts = [f"text w{number}" for number in numbers]
    return Index.build(folder, [block(numbers, kind)], ids=names, texts=texts, kind=kind, **options)


def said(hits: list[Hit]) -> list[tuple[str, str | None, float]]:
    return [(hit.id, hit.text, round(hit.score, 3)) for hit in hits]


def answers(index: Index, kind: str = "float32") -> Any:
    queries = block([100, 101, 102], kind)
    found = index.search(queries, 50, oversample=None if kind == "float16" else 50)
    return [sorted(said(hits)) for hits in found]


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "delete", "compact"]),
        st.lists(st.integers(0, 20), min_size=1, max_size=6, unique=True),
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=25)
@given(changes=CHANGES, kind=st.sampled_from(["float32", "int8", "float16"]))
def test_it_answers_as_one_built_anew(
    tmp_path_factory: pytest.TempPathFactory, changes: Any, kind: str
) -> None:
    home = tmp_path_factory.mktemp("changes")
    index, there = built(home / "index", [0, 1, 2, 3], kind), {0, 1, 2, 3}
    for change, numbers in changes:
        names = [f"id {number}" for number in numbers]
        if change == "add":
            texts = [f"text w{number}" for number in numbers]
            assert index.add([block(numbers, kind)], ids=names, texts=texts) == len(numbers)
            there |= set(numbers)
        elif change == "delete":
            assert index.delete(names) == len(there & set(numbers))
            there -= set(numbers)
        elif there:
            index.compact()
    assert len(index) == len(there)
    assert answers(index, kind) == answers(Index.open(home / "index"), kind)
    if there:
        assert answers(index, kind) == answers(built(home / "anew", sorted(there), kind), kind)
    named = IndexState.read(home / "index").names
    if named:
        kept = {each.name for each in (home / "index").iterdir()}
        assert kept == {"manifest.json", *named}


def test_words_are_found_in_all_segments(tmp_path: Path) -> None:
    pytest.importorskip("bm25s", reason="needs the extra search")
    index = built(tmp_path / "index", list(range(10)), bm25="english")
    index.add([block([3, 20], "float32")], ids=["id 3", "id 20"], texts=["moon", "text w20 moon"])
    assert [hit.id for hit in index.search(texts="moon")[0]] == ["id 3", "id 20"]
    assert index.search(texts=["w3", "w20"], top_k=1)[0] == []
    (hits,) = index.search(document(20, "float32"), 3, texts="moon")
    assert hits[0].id == "id 20"
    index.compact()
    assert [hit.id for hit in index.search(texts="moon")[0]] == ["id 3", "id 20"]


def test_an_open_index_stays_as_it_was(tmp_path: Path) -> None:
    index = built(tmp_path / "index", [0, 1, 2])
    before, expected = Index.open(tmp_path / "index"), answers(index)
    index.add([block([0, 5], "float32")], ids=["id 0", "id 5"], texts=["new", "newer"])
    index.compact()
    assert answers(before) == expected != answers(index)


def test_segments_stay_few(tmp_path: Path) -> None:
    index = built(tmp_path / "index", list(range(9)))
    for number in range(100, 140):
        index.add([block([number], "float32")], ids=[f"id {number}"], texts=["a text"])
    state = IndexState.read(tmp_path / "index")
    assert len(index) == 49
    assert len(state.segments) <= 6
    assert not list(find_faults(tmp_path / "index", state.files))


def test_rows_in_reach_of_a_reader_that_comes_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = built(tmp_path / "index", [0, 1, 2])
    stale, changed = IndexState(), []

    def read(folder: Path) -> IndexState:
        if changed:
            return real(folder)
        changed.append(True)
        index.delete(["id 1"])
        return stale

    real = IndexState.read
    monkeypatch.setattr(index_changes.IndexState, "read", read)
    assert len(Index.open(tmp_path / "index")) == 2


@pytest.mark.parametrize("change", ["add", "delete", "compact"])
def test_a_kill_at_any_moment_leaves_all_or_nothing(tmp_path: Path, change: str) -> None:
    before = {"id 0", "id 1", "id 2"}
    after = {"add": before | {"id 7"}, "delete": before - {"id 1"}, "compact": before}[change]
    for moment in range(1, 200):
        folder = tmp_path / str(moment)
        built(folder, [0, 1, 2])
        killed = _run_and_kill(folder, change, moment)
        there = {hit.id for hit in Index.open(folder).search(document(9, "float32"), 50)[0]}
        assert there in (before, after), moment
        _change(folder, change)  # and it goes on
        left = {hit.id for hit in Index.open(folder).search(document(9, "float32"), 50)[0]}
        assert left == after
        assert {each.name for each in folder.iterdir()} == {
            "manifest.json",
            *IndexState.read(folder).names,
        }
        if not killed:
            return
    pytest.fail("the change never ended")


def _change(folder: Path, change: str) -> None:
    index = Index.open(folder)
    if change == "add":
        index.add([block([7], "float32")], ids=["id 7"], texts=["seven"])
    elif change == "delete":
        index.delete(["id 1"])
    else:
        index.compact()


def _run_and_kill(folder: Path, change: str, moment: int) -> bool:
    """Whether the child died, before its change number `moment` to the disk."""
    if not (child := os.fork()):
        count = 0

        def counting(function: Any) -> Any:
            def counted(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return counted

        for name in ("replace", "rename", "unlink", "link", "mkdir", "rmdir"):
            setattr(os, name, counting(getattr(os, name)))
        _change(folder, change)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_what_cannot_be_added(tmp_path: Path) -> None:
    index = built(tmp_path / "index", [0, 1], model="m")
    row = block([5], "float32")
    for blocks, options, message in (
        ([row], {"ids": ["a"]}, "index: keeps texts; give them"),
        ([row], {"ids": ["a"], "texts": ["t"], "fields": [{}]}, "keeps no fields; leave them out"),
        ([row, row], {"ids": ["a", "a"], "texts": "tt"}, "^ids: got 'a' twice"),
        ([row[:, :3]], {"ids": ["a"], "texts": ["t"]}, r"got \(1, 3\) at row 0, expected \(n, 8"),
        ([list(row[:, None])], {"ids": ["a"], "texts": ["t"]}, "have one vector each"),
        ([row], {"ids": ["a"], "texts": ["t"], "model": "n"}, "vectors of another model"),
    ):
        with pytest.raises(InputError, match=message):
            index.add(blocks, **options)
    assert len(Index.open(tmp_path / "index")) == 2
    titled = Index.build(tmp_path / "titled", [row], ids=["a"], fields=[{"title": 1, "url": 2}])
    with pytest.raises(InputError, match="keeps fields title, url; give them"):
        titled.add([row], ids=["b"])
    Index.build(tmp_path / "plain", [row])
    with pytest.raises(InputError, match="plain: has no ids; build it with ids to change it"):
        Index.open(tmp_path / "plain").delete(["0"])


def test_all_documents_deleted(tmp_path: Path) -> None:
    index = built(tmp_path / "index", [0, 1])
    assert index.delete(["id 0", "id 1", "other"]) == 2
    assert index.search(document(0, "float32")) == [[]]
    with pytest.raises(InputError, match="holds no documents any more"):
        index.compact()
    index.add([block([1], "float32")], ids=["id 1"], texts=["again"])
    assert len(index) == 1


def test_a_manifest_that_names_other_files_is_refused(tmp_path: Path) -> None:
    index = built(tmp_path / "index", [0, 1])
    index.delete(["id 0"])
    path = tmp_path / "index" / "manifest.json"
    for found, replaced, message in (
        ("segment-0", "../segment-0", "not a file within the folder"),
        ('"deleted": "deleted-1', '"deleted": "deleted-2', "files: lacks deleted-2"),
    ):
        text = path.read_text()
        path.write_text(text.replace(found, replaced))
        with pytest.raises(InputError, match=message):
            Index.open(tmp_path / "index")
        path.write_text(text)
    np.save(tmp_path / "index" / "deleted-1.npy", np.array([[7]]))
    with pytest.raises(InputError, match="names rows that are not there"):
        Index.open(tmp_path / "index")


def test_a_changed_index_has_no_faiss_file(tmp_path: Path) -> None:
    index = built(tmp_path / "index", [0, 1])
    index.delete(["id 0"])
    with pytest.raises(InputError, match="modernbert index compact"):
        write_faiss(tmp_path / "index")
