"""A question and a long context as windows that a model can read, and the best span in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modernbert.errors import InputError
from modernbert.tokenizer.spans import Span
from modernbert.tokenizer.tokenizer import Tokenizer

MAX_ANSWER_TOKENS = 100
DEFAULT_STRIDE = 128


@dataclass(frozen=True)
class Window:
    """`[CLS] question [SEP] part of the context [SEP]`.

    question: the number of the question.
    first: the place of the first token of the context.
    spans: of each token of the context, its characters there.
    """

    token_ids: list[int]
    question: int
    first: int
    spans: Sequence[Span]

    is_truncated = False  # what one window lacks is in another


@dataclass(frozen=True)
class Found:
    """The best span of a window, or of several.

    score: of the span, and `no_answer` that of none: sums of two logits.
    probability: of this beginning and this end, within the window.
    start, end: characters of the context.
    """

    score: float
    no_answer: float
    probability: float
    start: int
    end: int


def windows_of(
    tokenizer: Tokenizer,
    question: str,
    context: str,
    *,
    number: int = 0,
    max_seqlen: int,
    stride: int,
) -> list[Window]:
    """The windows of one question and its context: one where all of it fits.

    Of a question that would take more than half of a window the end is cut.

    number: of the question, for its windows to bear.
    stride: how many tokens two neighbouring windows share.

    Raises:
        InputError: texts that are no str, or a stride that leaves nothing new for a window.
    """
    asked = tokenizer.encode(question, special_tokens=False)[: max_seqlen // 2]
    encoding = tokenizer.encode_with_offsets(context, special_tokens=False)
    template = tokenizer.template
    room = max_seqlen - template.num_special(2) - len(asked)
    first = len(template.pair_before) + len(asked) + len(template.between)
    if room < 1 or (stride >= room and len(encoding.token_ids) > room):
        raise InputError(
            f"stride: got {stride} with room for {room} tokens of the context in a sequence of "
            f"{max_seqlen}; expected less"
        )
    windows = []
    for begin in range(0, max(1, len(encoding.token_ids) - stride), max(1, room - stride)):
        part = encoding.token_ids[begin : begin + room]
        spans = encoding.offsets[begin : begin + room]
        windows.append(Window(template.frame(asked, part), number, first, spans))
        if begin + room >= len(encoding.token_ids):
            break
    return windows


def best_span(logits: Tensor, window: Window, max_tokens: int = MAX_ANSWER_TOKENS) -> Found:
    """The likeliest span of a window.

    logits: (tokens of the window, 2), of a beginning and of an end.
    max_tokens: the longest span.
    """
    no_answer = float(logits[0].sum())
    if not window.spans:
        return Found(-float("inf"), no_answer, 0.0, 0, 0)
    inside = logits[window.first : window.first + len(window.spans)]
    starts, ends = inside[:, 0], inside[:, 1]
    best, place = -float("inf"), (0, 0)
    for width in range(min(max_tokens, len(inside))):
        value, first = (starts[: len(inside) - width] + ends[width:]).max(0)
        if float(value) > best:
            best, place = float(value), (int(first), int(first) + width)
    total = float(torch.logsumexp(logits, 0).sum())
    chance = float(torch.tensor(best - total).exp())
    return Found(best, no_answer, chance, window.spans[place[0]][0], window.spans[place[1]][1])


def best_of(found: Sequence[Found]) -> Found:
    """The best span of all windows of a question; no answer only where no window has one."""
    best = max(found, key=lambda each: each.score)
    no_answer = min(each.no_answer for each in found)
    return Found(best.score, no_answer, best.probability, best.start, best.end)
