"""The costs are measured in small, and a cost that grows with the square is found."""

import json
from pathlib import Path

import pytest

from benchmarks import scaling


def test_every_cost_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "scaling.json"
    scaling.main(["--cache", str(tmp_path), "--out", str(out), "--most", "2e-4", "--only", "index"])
    rows = json.loads(out.read_text())["rows"]
    assert {name: row["unit"] for name, row in rows.items()} == dict.fromkeys(
        ["build an index", "add to an index", "search an index"], "documents"
    )


@pytest.mark.parametrize("name", ["prepare", "read CSV", "open rows with several labels", "embed"])
def test_the_pieces_of_work_can_be_done(tmp_path: Path, name: str) -> None:
    row = scaling.rows_of(scaling.model_folder(tmp_path))[name]
    assert scaling.measured(row, 6)[0] >= 0


@pytest.mark.parametrize("power", [1, 2])
def test_the_exponent_of_a_cost(power: int) -> None:
    sizes = [10, 20, 40, 80]
    assert scaling.exponent_of(sizes, [n**power for n in sizes]) == pytest.approx(power)
