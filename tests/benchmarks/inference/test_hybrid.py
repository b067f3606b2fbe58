"""The benchmark of hybrid search, in small: rankings are those of bm25s and faiss."""

from pathlib import Path

import pytest

from benchmarks.inference.hybrid import agreement, main
from benchmarks.results import read


def test_rankings_are_those_of_the_libraries(tmp_path: Path) -> None:
    pytest.importorskip("bm25s")
    pytest.importorskip("faiss")
    output = tmp_path / "result.json"
    small = "--documents 300 --queries 4 --dim 8 --rounds 1 --threads 1"
    main([*small.split(), "--output", str(output)])
    result = read(output)
    assert result["equal_rankings"] == 1
    assert result["ours"]["median_wall_ms"] > 0
    assert result["bm25s + faiss"]["queries_per_second"] > 0


def test_other_scores_do_not_agree() -> None:
    assert agreement([[0.5], [0.4]], [[0.5], [0.3]]) == 0.5
    assert agreement([[0.5]], [[0.5, 0.1]]) == 0
