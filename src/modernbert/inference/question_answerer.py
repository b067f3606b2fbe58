"""`QuestionAnswerer`: a question and a text to the piece of the text that answers it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from modernbert.device_copies import to_host
from modernbert.errors import InputError
from modernbert.inference.batching import InWindows, Observer
from modernbert.inference.inputs import num_characters
from modernbert.inference.loading import load_for_inference
from modernbert.inference.question_windows import (
    DEFAULT_STRIDE,
    Window,
    best_of,
    best_span,
    windows_of,
)
from modernbert.inference.text_model import TextModel
from modernbert.inference.use import Use
from modernbert.model.heads import SpanClassifier
from modernbert.model.precision import PrecisionChoice
from modernbert.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Answer:
    """A piece of a text, or nothing.

    text: empty where the text has no answer.
    score: the probability of this piece.
    start, end: its characters; `end` is exclusive.
    """

    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class EncodedQuestion(InWindows):
    """A question and a text as one sequence or several.

    Attributes:
        context: The text.
    """

    windows: Sequence[Window]
    context: str


class QuestionAnswerer(TextModel[SpanClassifier]):
    """Finds answers in texts of any length: a long one is read in windows that overlap.

    Args:
        model: On any device, in any precision.
        tokenizer: The one that the model was trained with.
        max_seqlen: The longest window, in tokens; None for what the model reads.
        stride: How many tokens two neighbouring windows share; a quarter of a window at most.

    Raises:
        InputError: A tokenizer of another vocabulary, or a longest window that cannot be read.
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
        self.stride = min(DEFAULT_STRIDE, self.max_seqlen // 4) if stride is None else stride

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: Path | str,
        *,
        precision: PrecisionChoice = "auto",
        max_seqlen: int | None = None,
        stride: int | None = None,
    ) -> "QuestionAnswerer":
        """Load a model that answers questions, and its tokenizer; see `TextModel`."""
        loaded = load_for_inference(SpanClassifier, folder_or_hub_id, precision, cls.kinds)
        return cls(*loaded, max_seqlen=max_seqlen, stride=stride)

    def __call__(self, question: str, context: str, *, must_answer: bool = False) -> Answer:
        """The answer to one question in one text.

        must_answer: give the likeliest piece even where none is likelier.

        Raises:
            InputError: something else than texts.
        """
        (answer,) = self.answer([(question, context)], must_answer=must_answer)
        return answer

    def answer(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        must_answer: bool = False,
        batch_tokens: int | None = None,
        on_progress: Observer | None = None,
    ) -> list[Answer]:
        """The answer to each question in the text beside it, in their order.

        batch_tokens: the most tokens that are computed at once.
        on_progress: is told after every batch; it counts windows.

        Raises:
            InputError: something else than pairs of texts, or an option that cannot be.
        """
        return list(
            self.stream(
                pairs, must_answer=must_answer, batch_tokens=batch_tokens, on_progress=on_progress
            )
        )

    def stream(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        must_answer: bool = False,
        batch_tokens: int | None = None,
        on_progress: Observer | None = None,
    ) -> Iterator[Answer]:
        """As `answer`, for any number of questions in bounded memory."""
        blocks = self.blocks(
            self.use(must_answer=must_answer),
            pairs,
            batch_tokens=batch_tokens,
            on_progress=on_progress,
        )
        return (answer for block in blocks for answer in block)

    def use(
        self, *, must_answer: bool = False
    ) -> Use[tuple[str, str], EncodedQuestion, list[Tensor], Answer]:
        """Pairs of a question and a text to answers.

        Args:
            must_answer: Give the likeliest piece even where none is likelier.
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
    """The answer from the logits of each window, (num_tokens, 2)."""
    spans = [best_span(*each) for each in zip(logits, encoded.windows, strict=True)]
    found = best_of(spans)
    if found.end == 0 or (found.no_answer > found.score and not must_answer):
        return Answer("", max(0.0, 1 - found.probability), 0, 0)
    text = encoded.context[found.start : found.end]
    return Answer(text, found.probability, found.start, found.end)


def _num_characters(pair: object) -> int:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError("pairs: expected a question and a text each")
    return num_characters(pair)
