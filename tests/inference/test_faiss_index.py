"""The FAISS index beside a search index finds the same."""

import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from modernbert.cli.app import app
from modernbert.errors import MissingPackageError
from modernbert.inference.index import Index, write_faiss
from modernbert.inference.index_folder import build_index


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_it_finds_the_same(tmp_path: Path, similarity: str) -> None:
    faiss = pytest.importorskip("faiss")
    draw = np.random.default_rng(0).standard_normal
    stored, queries = draw((60, 12), np.float32), draw((3, 12), np.float32)
    build_index(tmp_path / "i", [stored], similarity=similarity)  # type: ignore[arg-type]
    path = write_faiss(tmp_path / "i")
    assert {each.name for each in path.parent.iterdir()} >= {"index.faiss", "float32.npy"}
    if similarity == "cosine":
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    scores, rows = faiss.read_index(str(path)).search(queries, 5)
    for query, hits in enumerate(Index.open(tmp_path / "i").search(queries, 5)):
        assert [hit.row for hit in hits] == rows[query].tolist()
        np.testing.assert_allclose([hit.score for hit in hits], scores[query], atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_its_hash_finds_a_flipped_byte(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    build_index(tmp_path / "i", [np.ones((2, 3), np.float32)])
    path = write_faiss(tmp_path / "i")
    assert CliRunner().invoke(app, ["verify", str(path.parent)]).exit_code == 0
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    result = CliRunner().invoke(app, ["verify", str(path.parent)])
    assert result.exit_code == 2 and "index.faiss: differs from its hash" in result.output


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_index(tmp_path / "i", [np.ones((2, 3), np.float32)])
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'modernbert\[faiss\]'"):
        write_faiss(tmp_path / "i")
