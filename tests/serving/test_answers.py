"""Answers in pieces say the same as answers in one."""

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.serving import answers, schemas
from modernbert.serving.answers import Lazy, json_pieces

RANKS = st.builds(schemas.Rank, index=st.integers(0, 9), score=st.floats(0, 1))
VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(max_size=9) | RANKS,
    lambda inner: st.lists(inner, max_size=9),
    max_leaves=60,
)


@settings(max_examples=200, deadline=None)
@given(VALUES, st.integers(1, 12), st.integers(1, 40))
def test_pieces_together_are_the_whole(value: Any, values: int, size: int) -> None:
    whole = answers._encode(value)
    assert b"".join(json_pieces(value)) == whole
    kept = answers._PIECE_VALUES, answers._PIECE_BYTES
    try:
        answers._PIECE_VALUES, answers._PIECE_BYTES = values, size
        assert b"".join(json_pieces(value)) == whole
    finally:
        answers._PIECE_VALUES, answers._PIECE_BYTES = kept


def test_arrays_structs_and_lazy_lists() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 40_000)).astype("f4")
    pieces = list(json_pieces(list(rows)))
    assert len(pieces) > 10 and max(map(len, pieces)) < 400_000
    assert json.loads(b"".join(pieces)) == rows.tolist()
    data = [schemas.OpenAIEmbedding("embedding", row, at) for at, row in enumerate(rows)]
    usage = schemas.OpenAIUsage(1, 2)
    whole = b"".join(json_pieces(schemas.OpenAIResponse("list", data, "m", usage)))
    assert json.loads(whole)["data"][2]["embedding"] == rows[2].tolist()
    lazy = Lazy(20_000, lambda at: schemas.SparseValue(at, 0.5))
    for few in (Lazy(2, lazy.item), Lazy(0, lazy.item), lazy):
        expected = [{"index": at, "value": 0.5} for at in range(len(few))]
        assert json.loads(b"".join(json_pieces([few, few]))) == [expected, expected]
