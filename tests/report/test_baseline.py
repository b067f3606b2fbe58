"""The unigram baseline against a plain calculation."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.report import baseline as module
from modernbert.report.baseline import count_tokens, unigram_baseline

VOCAB_SIZE = 7
IDS = st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=30)


@settings(deadline=None)
@given(IDS, IDS)
def test_equal_to_a_plain_calculation(training: list[int], targets: list[int]) -> None:
    counts = count_tokens([np.array(training, dtype=np.uint16)], VOCAB_SIZE)
    baseline = unigram_baseline(counts, np.array(targets))
    counted = Counter(training)
    total = len(training) + VOCAB_SIZE
    losses = [-math.log((counted[target] + 1) / total) for target in targets]
    assert baseline.loss == pytest.approx(sum(losses) / len(losses))
    guess = min(range(VOCAB_SIZE), key=lambda token: (-counted[token], token))
    assert baseline.accuracy == pytest.approx(targets.count(guess) / len(targets))


@settings(deadline=None)
@given(IDS)
def test_counting_in_chunks_changes_nothing(ids: list[int]) -> None:
    array = np.array(ids, dtype=np.uint32)
    whole = count_tokens([array], VOCAB_SIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK_TOKENS", 4)
        assert np.array_equal(count_tokens([array], VOCAB_SIZE), whole)
    assert whole.sum() == len(ids)
