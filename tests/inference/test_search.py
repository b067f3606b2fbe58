"""The index on the disk: exact, bounded, and clear about what it cannot take."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.errors import InputError
from modernbert.hashes import FileHash
from modernbert.inference import index as searching
from modernbert.inference import index_folder, index_segment
from modernbert.inference.index import Hit, Index
from modernbert.inference.index_folder import build_index

DIM = 24


def vectors(rows: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dim), np.float32)


def exact(stored: np.ndarray, query: np.ndarray, similarity: str, top_k: int) -> list[int]:
    scores = stored.astype(np.float64) @ query
    if similarity == "cosine":
        scores /= np.linalg.norm(stored, axis=1)
    return np.argsort(-scores, kind="stable")[:top_k].tolist()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (index_segment, index_folder):
        monkeypatch.setattr(module, "_BLOCK_VECTORS", 7)
    monkeypatch.setattr(searching, "_QUERY_VECTORS", 3)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("kind", ["float32", "int8", "binary"])
def test_the_best_of_all(tmp_path: Path, kind: Any, similarity: Any) -> None:
    stored, queries = vectors(100), vectors(8, seed=1)
    names = [f"text {row} é\n" for row in range(100)]
    blocks = (stored[:1], stored[1:40], stored[40:40], stored[40:])
    build_index(tmp_path / "index", blocks, ids=names, kind=kind, similarity=similarity)
    index = Index.open(tmp_path / "index")
    found = index.search(queries, 5, oversample=1 if kind == "float32" else 20)
    for query, hits in zip(queries, found, strict=True):
        expected = exact(stored, query, similarity, 5)
        assert [hit.row for hit in hits] == expected
        assert [hit.id for hit in hits] == [names[row] for row in expected]
        for hit in hits:
            score = float(stored[hit.row] @ query)
            if similarity == "cosine":
                score /= float(np.linalg.norm(stored[hit.row]) * np.linalg.norm(query))
            assert hit.score == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize(("kind", "least"), [("int8", 0.99), ("binary", 0.6)])
def test_few_candidates_find_most(tmp_path: Path, kind: Any, least: float) -> None:
    stored, queries = vectors(3000, dim=256), vectors(20, seed=1, dim=256)
    build_index(tmp_path / "index", [stored], kind=kind)
    found = Index.open(tmp_path / "index").search(queries, 10)
    right = [
        len({hit.row for hit in hits} & set(exact(stored, query, "cosine", 10)))
        for hits, query in zip(found, queries, strict=True)
    ]
    assert sum(right) / 200 >= least


@settings(deadline=None, max_examples=25)
@given(rows=st.integers(1, 40), top_k=st.integers(1, 50), kind=st.sampled_from(["float32", "int8"]))
def test_any_number(
    tmp_path_factory: pytest.TempPathFactory, rows: int, top_k: int, kind: Any
) -> None:
    folder = tmp_path_factory.mktemp("any") / "index"
    build_index(folder, [vectors(rows)], kind=kind)
    index = Index.open(folder)
    assert len(index) == rows
    (hits,) = index.search(vectors(1, seed=1)[0], top_k)
    assert len(hits) == len({hit.row for hit in hits}) == min(rows, top_k)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_equal_vectors_come_in_their_order(tmp_path: Path) -> None:
    build_index(tmp_path / "index", [np.ones((5, 3), np.float32)])
    (hits,) = Index.open(tmp_path / "index").search(np.ones(3), 5)
    assert hits == [Hit(str(row), row, pytest.approx(1.0)) for row in range(5)]


def test_a_zero_vector_is_kept(tmp_path: Path) -> None:
    build_index(tmp_path / "index", [np.eye(3, dtype=np.float32) * [[1], [0], [1]]], kind="int8")
    (hits,) = Index.open(tmp_path / "index").search(np.array([0, 0, 1.0]), 3)
    assert [(hit.row, hit.score) for hit in hits] == [(2, 1.0), (0, 0.0), (1, 0.0)]


def test_the_manifest(tmp_path: Path) -> None:
    made = build_index(tmp_path / "index", [vectors(9)], kind="binary", model="abc")
    assert (made.count, made.dim, made.kind, made.model) == (9, DIM, "binary", "abc")
    assert Index.open(tmp_path / "index").manifest == made
    assert Index.open(str(tmp_path / "index")).search(np.zeros((0, DIM)), 1) == []


def test_building_and_searching_take_bounded_memory(tmp_path: Path) -> None:
    num_blocks, block_bytes = 64, 4096 * DIM * 4

    def blocks() -> Iterator[np.ndarray]:
        for seed in range(num_blocks):
            yield vectors(4096, seed)

    tracemalloc.start()
    build_index(tmp_path / "index", blocks(), ids=map(str, range(num_blocks * 4096)), kind="int8")
    Index.open(tmp_path / "index").search(vectors(2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < num_blocks * block_bytes / 2


def wrong_at(row: int, value: float) -> np.ndarray:
    rows = vectors(5)
    rows[row, 3] = value
    return rows


@pytest.mark.parametrize(
    ("blocks", "options", "message"),
    [
        ([], {}, "^vectors: got none"),
        ([vectors(3), wrong_at(2, np.nan)], {}, "^vectors: row 5 is not finite"),
        ([wrong_at(0, np.inf)], {}, "^vectors: row 0 is not finite"),
        ([vectors(3), vectors(3, dim=5)], {}, r"^vectors: got \(3, 5\) at row 3, expected \(n, 24"),
        ([np.zeros(3)], {}, r"^vectors: got \(3,\) at row 0, expected \(n, dim\)"),
        ([vectors(3)], {"ids": ["a", "b"]}, "^ids: got 2, fewer than"),
        ([vectors(3)], {"ids": "abcd"}, "^ids: got more than the 3 vectors"),
        ([vectors(3)], {"kind": "int4"}, "^kind: got 'int4', expected one of float32, int8, b"),
        ([vectors(3)], {"similarity": "l2"}, "^similarity: got 'l2', expected one of cosine"),
    ],
)
def test_what_cannot_be_built(tmp_path: Path, blocks: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_index(tmp_path / "index", blocks, **options)
    assert list(tmp_path.iterdir()) == []


def test_folders_and_queries_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="index: not a search index"):
        Index.open(tmp_path / "index")
    build_index(tmp_path / "index", [vectors(9)])
    with pytest.raises(InputError, match="already exists; delete it"):
        build_index(tmp_path / "index", [vectors(9)])
    index = Index.open(tmp_path / "index")
    for query, options, message in (
        (vectors(1, dim=5), {}, r"^queries: got \(1, 5\), expected \(num_queries, 24\)"),
        (wrong_at(0, np.nan), {}, "^queries: got a number that is not finite"),
        (vectors(1), {"top_k": 0}, "^top_k: got 0"),
        (vectors(1), {"oversample": 0}, "^oversample: got 0"),
    ):
        with pytest.raises(InputError, match=message):
            index.search(query, **options)  # type: ignore[arg-type]
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    for name, expected in manifest["files"].items():
        path = tmp_path / "index" / name
        content = path.read_bytes()
        assert FileHash.of(path) == FileHash(**expected)
        for cut in (content + b"x", *([content[:-1]] if content else [])):
            path.write_bytes(cut)
            with pytest.raises(InputError, match=f"{name}: has .* that were written; copy"):
                Index.open(tmp_path / "index")
        path.write_bytes(content)
    for changes, message in (
        ({"count": 8}, r"float32.npy: got \(9, 24\) float32, expected \(8, 24\) float32; build"),
        ({"format": "other"}, "format 'other', expected"),
        ({"unknown": 1}, "not a search index"),
    ):
        (tmp_path / "index" / "manifest.json").write_text(json.dumps({**manifest, **changes}))
        with pytest.raises(InputError, match=message):
            Index.open(tmp_path / "index")


@pytest.mark.parametrize("kind", ["float32", "int8", "binary"])
def test_a_folder_of_before(tmp_path: Path, kind: Any) -> None:
    """The manifest of version 1 had fewer fields."""
    made = build_index(tmp_path / "index", [vectors(9)], kind=kind)
    before = Index.open(tmp_path / "index").search(vectors(2, seed=1))
    said = {name: getattr(made, name) for name in ("count", "dim", "kind", "similarity", "model")}
    old = {**said, "format": "modernbert search index 1"}
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(old))
    assert Index.open(tmp_path / "index").search(vectors(2, seed=1)) == before


def test_built_and_opened_at_once(tmp_path: Path) -> None:
    index = Index.build(tmp_path / "one", [vectors(4)], ids="abcd", similarity="dot")
    lists = Index.build(tmp_path / "several", [[each[None] for each in vectors(4)]], ids="abcd")
    assert not index.manifest.is_ragged and lists.manifest.is_ragged
    (one,), (several,) = (each.search(vectors(1, seed=1), 4) for each in (index, lists))
    assert [hit.id for hit in one] == [hit.id for hit in several]  # MaxSim of one is the product


@pytest.mark.parametrize("value", [-1, 0, 5, 1 << 40])
def test_places_of_ids_that_are_none(tmp_path: Path, value: int) -> None:
    """An index of before has no hashes; its borders are looked at all the same."""
    build_index(tmp_path / "index", [vectors(3)], ids=["a", "b", "c"])
    places = np.load(tmp_path / "index" / "ids.npy")
    places[1] = value
    np.save(tmp_path / "index" / "ids.npy", places)
    if value == 5:
        hits = Index.open(tmp_path / "index")
        with pytest.raises(InputError, match="line 1 holds no id"):
            hits.search(vectors(1), 3)
    else:
        with pytest.raises(InputError, match="does not say where the lines of"):
            Index.open(tmp_path / "index")


def test_texts_are_kept_and_given_back(tmp_path: Path) -> None:
    texts = ["first", "second\nline", "third"]
    eye = np.eye(3, dtype=np.float32)
    build_index(tmp_path / "index", [eye[:2], eye[2:]], ids=["a", "b", "c"], texts=texts)
    (hits,) = Index.open(tmp_path / "index").search(eye[1], 1)
    assert [(hit.id, hit.text) for hit in hits] == [("b", "second\nline")]
    with pytest.raises(InputError, match="texts: got 2, fewer than there are vectors"):
        build_index(tmp_path / "other", [eye], texts=texts[:2])
