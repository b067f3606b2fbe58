"""Encodings of fixed size: the candidates they find, and that changes of an index keep them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modernbert.errors import InputError
from modernbert.hashes import find_faults
from modernbert.inference import index_segment
from modernbert.inference.index import Index
from modernbert.inference.index_encodings import Encodings, find_centroids
from modernbert.inference.index_folder import IndexManifest, index_bytes

DIM, COUNT, CLUSTERS = 16, 400, 32
TOPICS = np.random.default_rng(9).standard_normal((40, DIM), np.float32)


def texts(count: int, seed: int) -> list[np.ndarray]:
    """Documents of 1 to 8 vectors near one of some topics each, of length 1."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 9, count)
    vectors = [
        TOPICS[draw.integers(40, size=n)] + 0.4 * draw.standard_normal((n, DIM), np.float32)
        for n in lengths
    ]
    return [
        (each / np.linalg.norm(each, axis=1, keepdims=True)).astype(np.float32) for each in vectors
    ]


def build(folder: Path, count: int = COUNT, **options: Any) -> Index:
    ids = (f"id {number}" for number in range(count))
    options = {"clusters": CLUSTERS, "kind": "float32"} | options
    return Index.build(folder, [texts(count, 1)], ids=ids, **options)


def found(index: Index, oversample: int | None = None, top_k: int = 10) -> list[list[str]]:
    hits = index.search(texts(30, 2), top_k, oversample=oversample)
    return [[hit.id for hit in each] for each in hits]


def share(these: list[list[str]], those: list[list[str]]) -> float:
    pairs = zip(these, those, strict=True)
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]))


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_a_tenth_of_the_documents_has_nearly_all_of_the_best(tmp_path: Path, kind: Any) -> None:
    index = build(tmp_path / "index", kind=kind)
    exhaustive = found(index, COUNT)
    assert share(found(index, 4), exhaustive) > 0.9
    random = [[f"id {number}" for number in range(40)]] * 30
    assert share(random, exhaustive) < 0.3


def test_scores_are_those_of_max_sim(tmp_path: Path) -> None:
    index = build(tmp_path / "index", kind="int8")
    queries = texts(30, 2)
    exact = [{hit.row: hit.score for hit in hits} for hits in index.search(queries, COUNT)]
    for scores, hits in zip(exact, index.search(queries, 10, oversample=2), strict=True):
        assert [scores[hit.row] for hit in hits] == pytest.approx([hit.score for hit in hits])


def test_vectors_of_any_length_are_encoded(tmp_path: Path) -> None:
    for name, factor in (("long", 1e4), ("short", 1e-4)):
        documents = [factor * each for each in texts(COUNT, 1)]
        index = Index.build(tmp_path / name, [documents], kind="float32", clusters=CLUSTERS)
        assert share(found(index, 4), found(index, COUNT)) > 0.9


def test_few_documents_have_no_encodings_and_are_compared(tmp_path: Path) -> None:
    index = build(tmp_path / "index", 20)
    assert not (tmp_path / "index/encodings.npy").exists()
    assert index.manifest.clusters == CLUSTERS
    assert found(index, 1, 5) == found(build(tmp_path / "plain", 20, clusters=0), None, 5)


def test_changes_keep_encodings(tmp_path: Path) -> None:
    index = build(tmp_path / "index")
    queries = texts(30, 2)
    best = {each[0] for each in found(index)}
    assert index.delete(best) == len(best)
    assert not best & {name for each in found(index, 4) for name in each}
    assert index.add([queries], ids=(f"new {number}" for number in range(30))) == 30
    assert [each[0] for each in found(index, 8)] == [f"new {number}" for number in range(30)]
    index.compact()
    assert [each[0] for each in found(index, 8)] == [f"new {number}" for number in range(30)]
    (segment,) = (path for path in (tmp_path / "index").iterdir() if path.is_dir())
    assert np.load(segment / "encodings.npy", mmap_mode="r").shape == (CLUSTERS, len(index))
    assert not list(find_faults(segment, IndexManifest.read(segment).files))
    assert found(Index.open(tmp_path / "index"), 4) == found(index, 4)


def test_deleted_documents_are_no_candidates(tmp_path: Path) -> None:
    index = build(tmp_path / "index")
    index.delete(f"id {number}" for number in range(5, COUNT))
    assert {len(each) for each in found(index, 2)} == {5}


def test_search_reads_fewer_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = build(tmp_path / "index")
    compared: list[int] = []
    compare = index_segment.Segment._compared

    def counted(self: Any, query: np.ndarray, rows: np.ndarray, top_k: int) -> Any:
        compared.append(len(rows))
        return compare(self, query, rows, top_k)

    monkeypatch.setattr(index_segment.Segment, "_compared", counted)
    found(index, 3)
    assert compared == [30] * 30


def test_wrong_numbers_are_refused(tmp_path: Path) -> None:
    for clusters in (-1, 100_000):
        with pytest.raises(InputError, match="clusters: got"):
            build(tmp_path / "index", clusters=clusters)
    with pytest.raises(InputError, match="several vectors each"):
        Index.build(tmp_path / "index", [np.eye(4, dtype=np.float32)], clusters=2)
    assert not list(tmp_path.iterdir())


def test_encodings_of_another_size_are_refused(tmp_path: Path) -> None:
    build(tmp_path / "index")
    with pytest.raises(InputError, match="build the index anew"):
        Encodings(tmp_path / "index", COUNT - 1, DIM)
    with pytest.raises(InputError, match="build the index anew"):
        Encodings(tmp_path / "index", COUNT, DIM + 1)


def test_more_clusters_than_vectors_and_equal_vectors_have_finite_centroids() -> None:
    for vectors in (torch.zeros(3, 4), torch.ones(5, 4), torch.eye(4)):
        centroids = find_centroids(vectors, 8)
        assert centroids.shape == (8, 4)
        assert centroids.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "ragged"),
    [("int8", True), ("float16", True), ("float32", False), ("int8", False), ("binary", False)],
)
def test_the_size_is_known_beforehand(tmp_path: Path, kind: Any, ragged: bool) -> None:
    if ragged:
        index = build(tmp_path / "index", kind=kind)
    else:
        vectors = np.ones((COUNT, 100), np.float32)
        ids = (f"id {number}" for number in range(COUNT))
        index = Index.build(tmp_path / "index", [vectors], ids=ids, kind=kind)
    files = list((tmp_path / "index").glob("*.npy"))
    headers = 128 * len(files)
    expected = sum(index_bytes(index.manifest).values())
    places = 8 * COUNT
    found = sum(path.stat().st_size for path in files) - headers
    assert expected - places <= found <= expected
