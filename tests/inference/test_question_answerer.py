"""QuestionAnswerer: windows that cover a text, the best span, and answers in their order."""

from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rounding import assert_equal_but_for_rounding

from modernbert.batch import PackedBatch
from modernbert.errors import ConfigError, InputError
from modernbert.inference.question_answerer import (
    QuestionAnswerer,
    Window,
    best_of,
    best_span,
    windows_of,
)
from modernbert.model.config import EncoderConfig
from modernbert.model.heads import ClassifierSettings, SpanClassifier
from modernbert.model.initialize import initialize
from modernbert.tokenizer.tokenizer import Tokenizer

CONTEXT = "the square of number 7 is 49, not less. " * 6


@pytest.fixture(scope="module")
def folder(
    tokenizer: Tokenizer, config: EncoderConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    model = initialize(SpanClassifier(config, ClassifierSettings(labels=("start", "end"))), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    path = tmp_path_factory.mktemp("answerer")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@settings(max_examples=40)
@given(
    st.text(st.sampled_from("the square 7é\n"), max_size=120),
    st.integers(12, 40),
    st.integers(0, 3),
)
def test_windows_cover_the_text_and_overlap(
    tokenizer: Tokenizer, context: str, max_seqlen: int, stride: int
) -> None:
    whole = tokenizer.encode_with_offsets(context, special_tokens=False)
    windows = windows_of(
        tokenizer, "is it", context, number=3, max_seqlen=max_seqlen, stride=stride
    )
    covered: list[tuple[int, int]] = []
    for index, window in enumerate(windows):
        assert len(window.token_ids) == window.first + len(window.spans) + 1 <= max_seqlen
        assert window.token_ids[0] == tokenizer.cls_token_id and window.question == 3
        assert window.token_ids[window.first - 1] == tokenizer.sep_token_id
        if index:
            assert list(window.spans[:stride]) == covered[len(covered) - stride :][:stride]
        covered += list(window.spans)[stride if index else 0 :]
    assert covered == list(whole.offsets)


def test_the_best_span_is_the_best_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    for length in (1, 2, 7):
        spans = [(2 * i, 2 * i + 1) for i in range(length)]
        window = Window([0] * (length + 4), 0, 3, spans)
        logits = torch.randn(length + 4, 2, generator=generator)
        found = best_span(logits, window, max_tokens=3)
        places = [
            (float(logits[3 + a, 0] + logits[3 + b, 1]), a, b)
            for a, b in product(range(length), repeat=2)
            if a <= b < a + 3
        ]
        score, a, b = max(places)
        assert (found.start, found.end) == (2 * a, 2 * b + 1)
        assert_equal_but_for_rounding(found.score, score, num_terms=2)
        assert_equal_but_for_rounding(found.no_answer, logits[0].sum(), num_terms=2)
        chances = logits.softmax(0)
        probability = chances[3 + a, 0] * chances[3 + b, 1]
        assert_equal_but_for_rounding(found.probability, probability, num_terms=2 * len(logits))
    assert best_of([found, best_span(logits - 9, window)]).start == found.start


def test_answers_are_those_of_the_model(folder: Path) -> None:
    answerer = QuestionAnswerer.from_pretrained(folder, precision="float32", stride=4)
    pairs = [("is it less", "not"), ("what is", CONTEXT), ("", CONTEXT[:40]), ("what", "")]
    answers = answerer.answer(pairs, must_answer=True, batch_tokens=64)
    model = SpanClassifier.from_pretrained(folder)
    for (question, context), answer in zip(pairs, answers, strict=True):
        windows = windows_of(
            answerer.tokenizer, question, context, number=0, max_seqlen=32, stride=4
        )
        with torch.no_grad():
            found = best_of(
                [best_span(model(PackedBatch.from_sequences([w.token_ids])), w) for w in windows]
            )
        assert answer.text == context[found.start : found.end] == context[answer.start : answer.end]
        if context:
            assert answer.score == pytest.approx(found.probability, abs=1e-5)
        assert answerer(question, context, must_answer=True).text == answer.text
        may_be_none = answerer(question, context)
        assert (may_be_none.text == "") == (not context or found.no_answer > found.score)


def test_what_cannot_be(folder: Path, config: EncoderConfig) -> None:
    answerer = QuestionAnswerer.from_pretrained(folder, precision="float32", stride=40)
    with pytest.raises(InputError, match=r"^stride: got 40, expected less than"):
        answerer("what", CONTEXT)
    with pytest.raises(InputError, match=r"^pairs: expected a question and a text in each"):
        answerer.answer(["what"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"^labels: got 3, expected 2"):
        SpanClassifier(config, ClassifierSettings(labels=("a", "b", "c")))
