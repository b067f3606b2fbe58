"""The index of one vector a token: exact MaxSim over ragged documents, in blocks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.errors import InputError
from modernbert.inference import index as searching
from modernbert.inference import index_folder, index_segment
from modernbert.inference import similarity as scoring
from modernbert.inference.index import Index
from modernbert.inference.index_folder import build_index
from modernbert.inference.similarity import max_sim

DIM = 8


def texts(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    vectors = [draw.standard_normal((n, DIM), np.float32) for n in lengths]
    return [each / np.linalg.norm(each, axis=1, keepdims=True) for each in vectors]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (scoring, index_segment, index_folder):
        monkeypatch.setattr(module, "_BLOCK_VECTORS", 9)
    for module in (scoring, searching):
        monkeypatch.setattr(module, "_QUERY_VECTORS", 5)


def by_hand(query: np.ndarray, document: np.ndarray) -> float:
    return sum(max(float(q @ d) for d in document) for q in query)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=6),
    st.lists(st.integers(1, 20), min_size=1, max_size=9),
    st.integers(1, 30),
)
def test_max_sim_is_the_sum_of_the_best(
    query_lengths: list[int], lengths: list[int], block: int
) -> None:
    queries, documents = texts(query_lengths, 1), texts(lengths, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_BLOCK_VECTORS", block)
        patch.setattr(scoring, "_QUERY_VECTORS", block)
        scores = max_sim(queries, documents)
    expected = [[by_hand(query, document) for document in documents] for query in queries]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("kind", "tolerance"), [("float32", 1e-5), ("float16", 5e-3), ("int8", 0.05)]
)
def test_the_best_of_all(tmp_path: Path, kind: Any, tolerance: float) -> None:
    documents, queries = texts([3, 1, 12, 4, 2] * 8), texts([4, 7, 1, 2], seed=1)
    names = [f"text {row} é\n" for row in range(40)]
    blocks = (documents[:1], [], documents[1:])
    build_index(tmp_path / "index", blocks, ids=names, kind=kind, model="m")
    index = Index.open(tmp_path / "index")
    assert len(index) == 40 and index.manifest.num_vectors == 8 * 22 and index.manifest.model == "m"
    scores = max_sim(queries, documents)
    for query, hits in enumerate(index.search(queries, 5)):
        assert [hit.id for hit in hits] == [names[hit.row] for hit in hits]
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        for hit in hits:
            assert hit.score == pytest.approx(scores[query, hit.row], abs=tolerance)
        if kind == "float32":
            assert [h.row for h in hits] == np.argsort(-scores[query], kind="stable")[:5].tolist()


def test_stored_in_fewer_bytes(tmp_path: Path) -> None:
    for kind, size in (("float32", 4), ("float16", 2), ("int8", 1)):
        build_index(tmp_path / kind, [texts([500])], kind=kind)  # type: ignore[arg-type]
        stored = (tmp_path / kind / "vectors.npy").stat().st_size
        assert stored == pytest.approx(500 * DIM * size, abs=200)


def test_rows_are_numbers_where_there_are_no_ids(tmp_path: Path) -> None:
    build_index(tmp_path / "index", [texts([2, 3])])
    (hits,) = Index.open(tmp_path / "index").search(texts([2]), 10)
    assert sorted(hit.id for hit in hits) == ["0", "1"]
    assert Index.open(tmp_path / "index").search([], 10) == []


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "got none"),
        ([np.zeros((0, DIM))], r"got \(0, 8\) at 0"),
        ([np.ones((2, DIM)), np.ones((2, 3))], r"got \(2, 3\) at row 1, expected \(1 or more, 8\)"),
        ([np.ones((2, DIM)), np.full((1, DIM), np.nan)], "row 1 is not finite"),
    ],
)
def test_documents_that_cannot_be_stored(
    tmp_path: Path, documents: list[np.ndarray], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build_index(tmp_path / "index", [documents])
    assert not list(tmp_path.iterdir())


def test_bad_calls_are_named(tmp_path: Path) -> None:
    build_index(tmp_path / "index", [texts([2, 3])])
    index = Index.open(tmp_path / "index")
    with pytest.raises(InputError, match="top_k: got 0"):
        index.search(texts([2]), 0)
    with pytest.raises(InputError, match="vectors of 3 numbers, expected 8"):
        index.search([np.ones((2, 3), np.float32)])
    with pytest.raises(InputError, match="already exists"):
        build_index(tmp_path / "index", [texts([2])])
    with pytest.raises(InputError, match="ids: got 1, fewer"):
        build_index(tmp_path / "other", [texts([2, 2])], ids=["a"])
    with pytest.raises(InputError, match="kind: got 'binary'"):
        build_index(tmp_path / "other", [texts([2])], kind="binary")  # type: ignore[arg-type]
    np.save(tmp_path / "index" / "ends.npy", np.array([[2], [9]]))
    with pytest.raises(InputError, match="does not lead in 2 steps from 0 to 5"):
        Index.open(tmp_path / "index")


def test_a_count_that_no_list_has(tmp_path: Path) -> None:
    build_index(tmp_path / "index", [texts([2, 3])])
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(manifest | {"count": 10**19}))
    with pytest.raises(InputError, match="does not lead in 10000000000000000000 steps"):
        Index.open(tmp_path / "index")


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_a_folder_of_before(tmp_path: Path, kind: Any) -> None:
    """The manifest of version 1 had fewer fields."""
    made = build_index(tmp_path / "index", [texts([2, 3, 1])], kind=kind)
    before = Index.open(tmp_path / "index").search(texts([2], seed=1))
    said = {name: getattr(made, name) for name in ("count", "num_vectors", "dim", "kind", "model")}
    old = {**said, "format": "modernbert multi-vector index 1"}
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(old))
    assert Index.open(tmp_path / "index").search(texts([2], seed=1)) == before
