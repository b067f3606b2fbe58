"""A model that is carried in parts comes out as it went in, in bfloat16."""

from pathlib import Path

import pytest
import torch
from tests.model.examples import small_config, with_random_weights

from benchmarks.cuda import carrying
from modernbert.model.encoder import Encoder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    with_random_weights(Encoder(small_config())).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("a card")
    return tmp_path / "model"


def test_split_and_joined(model: Path, tmp_path: Path) -> None:
    parts = carrying.split(model, tmp_path / "parts", part_bytes=20_000)
    assert len(parts) > 2 and all(part.stat().st_size <= 20_000 for part in parts)
    assert carrying.main(["join", str(tmp_path / "parts"), str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "README.md").read_text() == "a card"
    before, after = (Encoder.from_pretrained(each) for each in (model, tmp_path / "again"))
    for one, other in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(one.bfloat16().float(), other)


@pytest.mark.parametrize("is_missing", [False, True])
def test_parts_that_are_not_whole_are_refused(
    model: Path, tmp_path: Path, is_missing: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    part = carrying.split(model, tmp_path / "parts")[0]
    if is_missing:
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert carrying.main(["join", str(tmp_path / "parts"), str(tmp_path / "again")]) == 1
    assert "part-00" in capsys.readouterr().err and not (tmp_path / "again").exists()


def test_the_model_of_the_recipe_fits_eight_files() -> None:
    assert 7 * carrying.PART_BYTES > 2 * 19_500_000 and carrying.PART_BYTES < 16_000_000
