"""`QuestionAnswerer`: a question and a text to the piece of the text that answers it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.device_copies import to_host
from modernbert.errors import InputError
from modernbert.inference.batching import Observer, Work, batch_tokens_for
from modernbert.inference.loading import (
    device_of,
    load_for_inference,
    longest_sequence,
    require_same_vocabulary,
)
from modernbert.inference.question_windows import (
    DEFAULT_STRIDE,
    Window,
    best_of,
    best_span,
    windows_of,
)
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


class QuestionAnswerer:
    """Finds answers in texts of any length: a long one is read in windows that overlap.

    model: on any device, in any precision.
    tokenizer: the one that the model was trained with.
    max_seqlen: the longest window in tokens; None for what the model reads.
    stride: how many tokens two neighbouring windows share; a quarter of a window at most.

    Raises:
        InputError: a tokenizer of another vocabulary, or a longest window that cannot be read.
    """

    def __init__(
        self,
        model: SpanClassifier,
        tokenizer: Tokenizer,
        *,
        max_seqlen: int | None = None,
        stride: int | None = None,
    ) -> None:
        require_same_vocabulary(model.config, tokenizer)
        self.model, self.tokenizer = model, tokenizer
        self.max_seqlen = longest_sequence(model.config, tokenizer, max_seqlen)
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
        """Load a model that answers questions, and its tokenizer.

        Raises:
            ModelFolderError: no such model, or one that cannot be used.
            TokenizerError: no tokenizer beside it, or one that cannot be used.
            ConfigError: a precision that cannot be had here.
            InputError: a tokenizer of another vocabulary.
        """
        loaded = load_for_inference(SpanClassifier, folder_or_hub_id, precision, ("answerer",))
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
        contexts: dict[int, str] = {}  # of the questions that are being worked on
        device = device_of(self.model)
        work: Work[Window, Window, Tensor] = Work(
            encode=list,
            compute=self._logits,
            size=lambda window: len(window.token_ids),
            device=device,
            batch_tokens=batch_tokens_for(device, batch_tokens),
        )
        results = (
            (window.question, best_span(logits, window))
            for block in work.run(self._windows(pairs, contexts), on_progress)
            for window, logits in block
        )
        for number, group in groupby(results, key=lambda result: result[0]):
            found, context = best_of([each for _, each in group]), contexts.pop(number)
            if found.end == 0 or (found.no_answer > found.score and not must_answer):
                yield Answer("", max(0.0, 1 - found.probability), 0, 0)
            else:
                text = context[found.start : found.end]
                yield Answer(text, found.probability, found.start, found.end)

    def _windows(
        self, pairs: Iterable[tuple[str, str]], contexts: dict[int, str]
    ) -> Iterator[Window]:
        for number, pair in enumerate(pairs):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise InputError("pairs: expected a question and a text each")
            question, contexts[number] = pair
            yield from windows_of(
                self.tokenizer,
                question,
                contexts[number],
                number=number,
                max_seqlen=self.max_seqlen,
                stride=self.stride,
            )

    def _logits(self, batch: PackedBatch) -> Sequence[Tensor]:
        return batch.split(to_host(self.model(batch).float()))
