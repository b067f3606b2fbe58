"""`QuestionAnswerer`: the part of a text that answers a question."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from modernbert.devices import to_host
from modernbert.errors import InputError
from modernbert.inference.batching import InWindows, RunOptions
from modernbert.inference.inputs import num_characters
from modernbert.inference.loading import load_for_inference, window_overlap
from modernbert.inference.text_model import TextModel, Use
from modernbert.model.choices import PrecisionChoice
from modernbert.model.heads import SpanClassifier
from modernbert.tokenizer.texts import Span
from modernbert.tokenizer.tokenizer import Tokenizer

MAX_ANSWER_TOKENS = 100


@dataclass(frozen=True)
class Window:
    """One window: `[CLS] question [SEP] part of the context [SEP]`.

    Attributes:
        question: The number of the question.
        first: The index of the first token of the context.
        spans: The characters of each token of the context.
    """

    token_ids: list[int]
    question: int
    first: int
    spans: Sequence[Span]

    is_truncated = False  # what one window lacks is in another


@dataclass(frozen=True)
class FoundSpan:
    """The best span of one or several windows.

    Attributes:
        score: The score of the span, a sum of two logits.
        no_answer: The score of no answer, another sum of two logits.
        probability: The probability of this beginning and this end within the window.
        start: The first character in the context.
        end: The character after the last.
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
    """Divide a question and its context into windows; there is one if everything fits.

    A question that would take more than half of a window is truncated.

    Args:
        tokenizer: The tokenizer of the model, which knows where its tokens are in a text.
        question: The question, in a whole sentence.
        context: The text to search.
        number: The number of the question, which its windows carry.
        max_seqlen: The longest window, in tokens.
        stride: The number of tokens that two neighbouring windows share.

    Raises:
        InputError: A text is not a str, or the stride leaves no new tokens for a window.
    """
    asked = tokenizer.encode(question, special_tokens=False)[: max_seqlen // 2]
    encoding = tokenizer.encode_with_offsets(context, special_tokens=False)
    template = tokenizer.template
    room = max_seqlen - template.num_special(2) - len(asked)
    first = len(template.pair_before) + len(asked) + len(template.between)
    if room < 1 or (stride >= room and len(encoding.token_ids) > room):
        raise InputError(
            f"stride: got {stride}, expected less than {room}, the tokens of the context that fit "
            f"into a sequence of {max_seqlen}"
        )
    windows = []
    for begin in range(0, max(1, len(encoding.token_ids) - stride), max(1, room - stride)):
        part = encoding.token_ids[begin : begin + room]
        spans = encoding.offsets[begin : begin + room]
        windows.append(Window(template.frame(asked, part), number, first, spans))
        if begin + room >= len(encoding.token_ids):
            break
    return windows


def best_span(logits: Tensor, window: Window, max_tokens: int = MAX_ANSWER_TOKENS) -> FoundSpan:
    """Find the most likely span of a window.

    Args:
        logits: (num_tokens, 2), for the beginning and the end of an answer.
        window: The window, which knows where its tokens are in the context.
        max_tokens: The longest span, in tokens.
    """
    no_answer = float(logits[0].sum())
    if not window.spans:
        return FoundSpan(-float("inf"), no_answer, 0.0, 0, 0)
    inside = logits[window.first : window.first + len(window.spans)]
    starts, ends = inside[:, 0], inside[:, 1]
    best, place = -float("inf"), (0, 0)
    for width in range(min(max_tokens, len(inside))):
        value, first = (starts[: len(inside) - width] + ends[width:]).max(0)
        if float(value) > best:
            best, place = float(value), (int(first), int(first) + width)
    total = float(torch.logsumexp(logits, 0).sum())
    chance = float(torch.tensor(best - total).exp())
    return FoundSpan(best, no_answer, chance, window.spans[place[0]][0], window.spans[place[1]][1])


def best_of(found: Sequence[FoundSpan]) -> FoundSpan:
    """Return the best span of all windows of a question, or no answer if no window has one."""
    best = max(found, key=lambda each: each.score)
    no_answer = min(each.no_answer for each in found)
    return FoundSpan(best.score, no_answer, best.probability, best.start, best.end)


@dataclass(frozen=True)
class Answer:
    """A part of a text, or no answer.

    Attributes:
        text: The answer; empty if the text has none.
        score: The probability of this part.
        start: Its first character.
        end: The character after its last.
    """

    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class EncodedQuestion(InWindows):
    """A question and a text as one sequence or several.

    Attributes:
        context: The text in which the answer is looked for.
    """

    windows: Sequence[Window]
    context: str


class QuestionAnswerer(TextModel[SpanClassifier]):
    """Finds answers in texts of any length; a long text is read in windows that overlap.

    Args:
        model: The model, on any device and in any precision.
        tokenizer: The tokenizer that the model was trained with.
        max_seqlen: The longest window, in tokens; by default what the model can read.
        stride: The number of tokens that two neighbouring windows share, at most a quarter of a
            window.

    Raises:
        InputError: The tokenizer has another vocabulary, or the model cannot read windows that
            long.
    """

    model_class = SpanClassifier
    kinds = ("answerer",)

    def __init__(
        self,
        model: SpanClassifier,
        tokenizer: Tokenizer,
        *,
        max_seqlen: int | None = None,
        stride: int | None = None,
    ) -> None:
        super().__init__(model, tokenizer, max_seqlen=max_seqlen)
        self.stride = window_overlap(self.max_seqlen, stride)

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: Path | str,
        *,
        precision: PrecisionChoice = "auto",
        max_seqlen: int | None = None,
        stride: int | None = None,
    ) -> "QuestionAnswerer":
        """Load a model that answers questions, with its tokenizer.

        Args:
            folder_or_hub_id: The folder of the model or of a run, or a hub id.
            precision: The precision to compute in.
            max_seqlen: As in the constructor.
            stride: As in the constructor.
        """
        loaded = load_for_inference(SpanClassifier, folder_or_hub_id, precision, cls.kinds)
        return cls(*loaded, max_seqlen=max_seqlen, stride=stride)

    def __call__(self, question: str, context: str, *, must_answer: bool = False) -> Answer:
        """Answer one question from one text.

        Args:
            question: The question, in a whole sentence.
            context: The text to search for the answer.
            must_answer: Whether to return the most likely part even if no answer is more likely.

        Returns:
            The answer.

        Raises:
            InputError: Something is not a text.
        """
        (answer,) = self.answer([(question, context)], must_answer=must_answer)
        return answer

    def answer(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        must_answer: bool = False,
        **options: Unpack[RunOptions],
    ) -> list[Answer]:
        """Answer many questions, each from its own text.

        Args:
            pairs: Any number of pairs of a question and a text.
            must_answer: As in `__call__`.
            **options: As in `RunOptions`; the progress counts windows.

        Returns:
            The answers, in the order of the questions.

        Raises:
            InputError: Something is not a pair of texts, or an option is not valid.
        """
        return list(self.stream(pairs, must_answer=must_answer, **options))

    def stream(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        must_answer: bool = False,
        **options: Unpack[RunOptions],
    ) -> Iterator[Answer]:
        """Answer questions as `answer` does, for any number of them in bounded memory.

        Args:
            pairs: Pairs of a question and a text, which are read as the results are taken.
            must_answer: As in `__call__`.
            **options: As in `RunOptions`; the progress counts windows.

        Raises:
            InputError: Something is not a pair of texts, or an option is not valid.
        """
        blocks = self.blocks(self.use(must_answer=must_answer), pairs, **options)
        return (answer for block in blocks for answer in block)

    def use(
        self, *, must_answer: bool = False
    ) -> Use[tuple[str, str], EncodedQuestion, list[Tensor], Answer]:
        """Describe how pairs of a question and a text become answers.

        Args:
            must_answer: As in `__call__`.
        """
        return Use(
            name="spans",
            encode=lambda pairs: [self._encoded(pair) for pair in pairs],
            compute=lambda batch: batch.split(to_host(self.model(batch).float())),  # type: ignore[arg-type, return-value]
            finish=lambda encoded, logits: [
                _answer(*each, must_answer=must_answer)
                for each in zip(encoded, logits, strict=True)
            ],
            max_seqlen=self.max_seqlen,
            size=_num_characters,
        )

    def _encoded(self, pair: tuple[str, str]) -> EncodedQuestion:
        question, context = pair
        windows = windows_of(
            self.tokenizer, question, context, max_seqlen=self.max_seqlen, stride=self.stride
        )
        return EncodedQuestion(windows, context)


def _answer(encoded: EncodedQuestion, logits: Sequence[Tensor], *, must_answer: bool) -> Answer:
    """Return the answer from the logits of each window, (num_tokens, 2)."""
    spans = [best_span(*each) for each in zip(logits, encoded.windows, strict=True)]
    found = best_of(spans)
    if found.end == 0 or (found.no_answer > found.score and not must_answer):
        return Answer("", max(0.0, 1 - found.probability), 0, 0)
    text = encoded.context[found.start : found.end]
    return Answer(text, found.probability, found.start, found.end)


def _num_characters(pair: object) -> int:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError("pairs: expected a question and a text in each")
    return num_characters(pair)
