"""Planned and real memory are taken from the two commands and compared; the commands are played."""

import json
import tomllib
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.training import memory


@pytest.mark.parametrize(("real", "status"), [(2_200, 0), (2_400, 1), (1_800, 0), (1_600, 1)])
def test_the_prediction_is_held_to_the_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real: int, status: int
) -> None:
    asked = []

    def run(_: str, verb: str, recipe: Path, *__: str) -> str:
        given = tomllib.loads(recipe.read_text())
        if verb == "plan":
            asked.append((given["packing"]["max_seqlen"], given["computation"]["recompute"]))
            return json.dumps({"phases": [{"memory_bytes": {"total": 2_000}}]})
        folder = Path(given["output"])
        folder.mkdir()
        records = [
            {"kind": "step", "memory_bytes": 1_000},
            {"kind": "step", "memory_bytes": real},
            {"kind": "evaluation"},
        ]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / "metrics.jsonl").write_text(lines)
        return ""

    monkeypatch.setattr(memory, "run_module", run)
    monkeypatch.setattr(memory, "prepare", lambda *_: tmp_path)
    out = tmp_path / "memory.json"
    assert memory.main(["--out", str(out)]) == status
    cases = results.read(out)["cases"]
    assert [each["ratio"] for each in cases] == [real / 2_000] * len(memory.CASES)
    assert asked == [(1_024, False), (8_192, False), (8_192, True)]
