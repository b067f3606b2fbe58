"""What a corpus takes, against one that is really written."""

from pathlib import Path

import numpy as np
import pytest

from modernbert.data.shards import ShardWriter, SpecialTokens
from modernbert.errors import InputError
from modernbert.planning.lengths import WEB, DocumentLengths, plan_data


@pytest.mark.parametrize("vocab_size", [50_368, 100_000])
def test_shards_are_as_large_as_planned(tmp_path: Path, vocab_size: int) -> None:
    ids = SpecialTokens(cls=0, sep=1, pad=2, mask=3, unk=4)
    with ShardWriter(
        tmp_path / "shards",
        vocab_size=vocab_size,
        special_token_ids=ids,
        tokenizer_fingerprint="test",
        shard_tokens=1_000,
    ) as writer:
        for _ in range(100):
            writer.add([5] * 100)
    written = sum(path.stat().st_size for path in (tmp_path / "shards").glob("*"))
    manifest = (tmp_path / "shards" / "manifest.json").stat().st_size
    plan = plan_data(
        10_000,
        lengths=DocumentLengths.measured(np.full(3, 100), source=""),
        vocab_size=vocab_size,
        shard_tokens=1_000,
    )
    assert (plan.documents, plan.shards) == (100, 10)
    assert plan.shard_bytes == written - manifest


def test_two_trillion_tokens() -> None:
    plan = plan_data(2 * 10**12, lengths=WEB, vocab_size=50_368, num_cores=128)
    assert plan.dtype == "uint16" and plan.shards == 8_000
    assert plan.documents == pytest.approx(2e12 / 1_300, rel=0.01)
    assert plan.shard_bytes == pytest.approx(4.01e12, rel=0.01)
    assert plan.text_bytes == pytest.approx(8.6e12)
    assert plan.core_hours == pytest.approx(2e12 / 400_000 / 3600)
    assert plan.hours == pytest.approx(plan.core_hours / 128)


def test_a_rate_of_ones_own() -> None:
    plan = plan_data(3_600_000, lengths=WEB, vocab_size=512, tokens_per_second_and_core=1_000.0)
    assert plan.core_hours == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"tokens": 0}, "tokens: got 0"), ({"num_cores": 0}, "cores: got 0")]
    + [({"tokens_per_second_and_core": rate}, "tokens a second: got") for rate in (0.0, -1.0)],
)
def test_impossible_numbers(change: dict[str, float], message: str) -> None:
    arguments = {"tokens": 10, "lengths": WEB, "vocab_size": 512, **change}
    with pytest.raises(InputError, match=message):
        plan_data(**arguments)  # type: ignore[arg-type]
