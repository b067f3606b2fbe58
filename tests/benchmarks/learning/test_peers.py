"""What peers of the race have in common with ours: equal beginnings and equal text."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning.candidates import PEERS
from benchmarks.learning.peers import train_peer
from benchmarks.learning.text import MAX_SEQLEN, Text
from modernbert.model.heads import MaskedLanguageModel


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    """The real thing with a small corpus and vocabulary."""
    folder = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.learning.text.collect_python_corpus", _few_documents)
        patch.setattr("benchmarks.learning.text.VOCAB_SIZE", 512)
        patch.setattr("benchmarks.learning.text.HELD_OUT_TOKENS", 2_000)
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


@pytest.mark.parametrize("peer", PEERS)
def test_peers_begin_with_our_weights_and_learn(text: Text, peer: str) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(text.first_model).state_dict()
    ours = MaskedLanguageModel.from_pretrained(text.first_model).state_dict()
    begin = text.held_out_figures(theirs)["held_out_loss"]
    assert begin == pytest.approx(text.held_out_figures(ours)["held_out_loss"], abs=1e-6)
    *_, before, end = train_peer(f"{peer}@4e-3@1024", 6_000, 0, text)
    assert end.loss < begin - 0.5 and 6_000 <= end.tokens < 7_500
    assert 0 < before.seconds <= end.seconds
