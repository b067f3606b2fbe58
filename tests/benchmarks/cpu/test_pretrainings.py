"""What the pretrainings of a race have in common: equal beginnings and equal text."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cpu.pretrainings import SYSTEMS, Budget
from benchmarks.python_text import MAX_SEQLEN, Text

OURS, _, BLOCKS = SYSTEMS


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    """The real thing with a small corpus and vocabulary."""
    folder = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.python_text.collect_python_corpus", _few_documents)
        patch.setattr("benchmarks.python_text.VOCAB_SIZE", 512)
        patch.setattr("benchmarks.python_text.HELD_OUT_TOKENS", 2_000)
        yield Text.prepare(folder)


def _few_documents(folder: Path) -> None:
    folder.mkdir(parents=True)
    words = ["the", "house", "by", "river", "stands", "and", "falls", "stone", "old", "wall"]
    generator = np.random.default_rng(0)
    for name, count in (("held-out", 12), ("train", 60)):
        lines = (
            f'{{"text": "{number} {" ".join(generator.choice(words, 40 * (1 + number % 9)))}"}}\n'
            for number in range(count)
        )
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def test_blocks_and_rows_hold_the_same_text(text: Text) -> None:
    pieces, blocks = list(text.pieces()), list(text.blocks())
    special = text.opened.sources[0][0].special_token_ids
    assert all(piece[0] == special.cls and piece[-1] == special.sep for piece in pieces)
    assert max(map(len, pieces)) <= MAX_SEQLEN
    assert {len(block) for block in blocks} == {MAX_SEQLEN}
    row, blocked = list(chain(*pieces)), list(chain(*blocks))
    assert row[: len(blocked)] == blocked and len(row) - len(blocked) < MAX_SEQLEN
    total = text.opened.sources[0][0].num_tokens + 2 * len(pieces)
    assert sum(map(len, pieces)) == total


def test_everyone_begins_alike_and_learns(text: Text) -> None:
    """The loss before the first step is ours; after a few steps it is lower for all."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    weights = transformers.AutoModelForMaskedLM.from_pretrained(text.first_model).state_dict()
    begin = text.held_out_figures(weights)["held_out_loss"]
    budget = Budget(rate=4e-3, tokens=6_000, tokens_a_step=1_024, evaluations=2)
    runs = {name: train(text, budget) for name, train in SYSTEMS.items()}
    assert runs[OURS].points[0][:3] == pytest.approx((0, 0, begin), abs=1e-3)
    for name, run in runs.items():
        assert run.end.loss < begin - 0.5, name
        assert 6_000 <= run.end.tokens < 7_500, name
        assert 0 < run.points[-2].seconds <= run.end.seconds, name


@pytest.mark.parametrize("name", [OURS, BLOCKS])
def test_a_budget_of_seconds_ends_by_itself(text: Text, name: str) -> None:
    if name != OURS:
        pytest.importorskip("accelerate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.cpu.pretrainings._TRIAL_STEPS", 2)
        patch.setattr("benchmarks.cpu.pretrainings._TRIAL_WARMUP_STEPS", 1)
        run = SYSTEMS[name](text, Budget(rate=1e-3, seconds=0.1, tokens_a_step=1_024))
    assert run.end.seconds > 0
    assert run.end.tokens > 0
    assert run.precision in ("auto", "float32", "bfloat16")
