"""The benchmark of late interaction, in small: it builds, searches and compares."""

from pathlib import Path

import numpy as np

from benchmarks.inference.late_interaction import main
from benchmarks.results import read


def test_it_runs_and_compares_with_the_exhaustive_search(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for name, count in (("documents", 200), ("queries", 5)):
        lengths = draw.integers(1, 6, (count, 1))
        np.save(tmp_path / f"{name}-lengths.npy", lengths)
        vectors = draw.standard_normal((int(lengths.sum()), 8), np.float32)
        np.save(tmp_path / f"{name}.npy", vectors)
    main(
        f"--documents {tmp_path}/documents.npy --lengths {tmp_path}/documents-lengths.npy "
        f"--queries {tmp_path}/queries.npy --query-lengths {tmp_path}/queries-lengths.npy "
        f"--documents-count 200 --clusters 8 --oversample 2 10 --top-k 10 --threads 1 "
        f"--work {tmp_path}/work --output {tmp_path}/result.json".split()
    )
    result = read(tmp_path / "result.json")
    assert (result["documents"], result["queries"], result["clusters"]) == (200, 5, 8)
    searches = result["searches"]
    assert searches["exhaustive"]["recall"] == 1
    assert searches["oversample 2"]["recall"] <= searches["oversample 10"]["recall"]
