"""The script measures something, and writes it; the figures are not looked at."""

import json
from pathlib import Path

from benchmarks.training import checkpoint_cost
from benchmarks.training.checkpoint_cost import Save


def test_a_short_run(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    options = ["--size", "tiny", "--tokens", "32", "--minutes", "0", "--quiet-steps", "2"]
    assert checkpoint_cost.main([*options, "--folder", str(tmp_path), "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    (save,) = result["saves"]
    assert save["seconds"] >= save["paused_seconds"] > 0 and result["checkpoint_bytes"] > 1e6
    assert result["share"] == result["cost_seconds"] / 600
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_the_cost_is_the_pause_and_the_slower_steps() -> None:
    save = Save(quiet_seconds=1.0, paused_seconds=0.5, beside_seconds=[1.25, 1.5], seconds=3.0)
    assert save.cost_seconds == 1.25
