"""Answers to questions in texts: where in a text, of any length, an answer begins and ends.

A text is read in windows. In a window without the answer, beginning and end are at [CLS].
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from modernbert.batch import PackedBatch
from modernbert.data.rows.cells import as_list, as_object, is_missing, whole_number
from modernbert.data.rows.table import Table
from modernbert.errors import InputError
from modernbert.inference.loading import window_overlap
from modernbert.inference.question_answerer import Window, best_of, best_span, windows_of
from modernbert.metrics.spans import answer_scores, overlap_f1
from modernbert.model.heads import ClassifierSettings, SpanClassifier
from modernbert.tasks.labels.objective import Judged, Split, judged_rows, label_job, use_of
from modernbert.tasks.labels.recipe import ANSWERS, CONTEXTS, QUESTIONS, AnswerRecipe
from modernbert.tasks.labels.rows import LabelledTables
from modernbert.tasks.tuning.job import Review, TuningJob


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question, its context and its answers.

    Attributes:
        answers: Each with the place of its first character in the context; empty if there is none.
    """

    question: str
    context: str
    answers: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class AnswerWindow:
    """A window, and the places of the answer's first and last token; 0 if it has no answer.

    Attributes:
        row: The row that the window belongs to.
    """

    window: Window
    start: int
    end: int
    row: AnsweredQuestion

    @property
    def token_ids(self) -> list[int]:
        return self.window.token_ids

    def __repr__(self) -> str:
        return f"{self.token_ids} {self.start} {self.end}"


class QuestionAnswering:
    """A beginning and an end in each window, learned by the mean of their cross entropies.

    Args:
        has_unanswerable: Whether some questions have no answer; otherwise each is given one.
    """

    metric = "f1"

    def __init__(self, *, has_unanswerable: bool) -> None:
        self.has_unanswerable = has_unanswerable

    def num_targets(self, _example: AnswerWindow, /) -> int:
        return 1

    def loss(
        self, outputs: Tensor, batch: PackedBatch, examples: Sequence[AnswerWindow], /
    ) -> Tensor:
        """Return the sum of the losses of the windows."""
        # Padded only here, for the softmax over each window's places.
        padded = batch.to_padded(outputs, padding_value=-torch.inf)  # (windows, places, 2)
        places = [[each.start, each.end] for each in examples]
        targets = torch.tensor(places, device=outputs.device)
        return functional.cross_entropy(padded, targets, reduction="sum") / 2

    def scores(
        self, outputs: Sequence[Tensor], examples: Sequence[AnswerWindow], /
    ) -> dict[str, float]:
        """Compute exact match and F1 over the questions."""
        found = list(self._answers(outputs, examples))
        return answer_scores(
            [answer for answer, _ in found], [_texts(row.answers) for _, row in found]
        )

    def review(self, outputs: Sequence[Tensor], split: Split[AnswerWindow], /) -> Review:
        """Return the questions whose answers share least with the right ones."""
        judged = [
            Judged(
                is_right=(score := overlap_f1(answer, _texts(row.answers))) == 1,
                error=1 - score,
                text=f"{row.question}  |  {row.context[:1000]}",
                expected="; ".join(_texts(row.answers)) or "no answer",
                predicted=answer or "no answer",
                figure=f"{score:.3f}",
            )
            for answer, row in self._answers(outputs, split.examples)
        ]
        return Review(**judged_rows(judged, "F1"))

    def _answers(
        self, outputs: Sequence[Tensor], examples: Sequence[AnswerWindow]
    ) -> Iterator[tuple[str, AnsweredQuestion]]:
        """Yield the answer to each question, from all of its windows, and its row."""
        pairs = zip(outputs, examples, strict=True)
        for _, group in groupby(pairs, key=lambda pair: pair[1].window.question):
            windows = list(group)
            found = best_of([best_span(logits, each.window) for logits, each in windows])
            row = windows[0][1].row
            none = self.has_unanswerable and found.no_answer > found.score
            yield "" if none else row.context[found.start : found.end], row


def open_answer(recipe: AnswerRecipe) -> TuningJob:
    """Open the job of learning to answer questions from texts.

    Raises:
        ModernBertError: The model or the data cannot be used; see `LabelledTables.open`.
    """
    source = LabelledTables.open(recipe)
    columns = (
        source.train.find(QUESTIONS, asked=recipe.data.text, option="--text"),
        source.train.find(CONTEXTS, asked=recipe.data.text_pair, option="--text-pair"),
        source.label_column(ANSWERS),
    )
    rows = {name: read_questions(table, *columns) for name, table in source.tables.items()}
    splits = {
        name: Split(
            table.source,
            [
                window
                for number, row in enumerate(rows[name])
                for window in _cut(source, recipe.data.stride, row, number)
            ],
            [],
        )
        for name, table in source.tables.items()
    }
    unanswerable = sum(not row.answers for row in rows["train"])
    if unanswerable == len(rows["train"]):
        raise InputError(f"{source.train.source}: no question has an answer; nothing to learn")
    return label_job(
        source,
        "answer",
        QuestionAnswering(has_unanswerable=unanswerable > 0),
        splits,
        SpanClassifier,
        ClassifierSettings(labels=("start", "end"), pooling="mean"),
        use_of(
            "QuestionAnswerer",
            "question-answering",
            "the answer to a question in a text",
            '"A question?", "A text that answers it."',
        ),
        facts={
            "columns": ", ".join(columns),
            "longest window": source.max_seqlen,
            "questions": {name: len(each) for name, each in rows.items()},
            "without an answer": unanswerable,
        },
    )


def read_questions(
    table: Table, question: str, context: str, answers: str
) -> list[AnsweredQuestion]:
    """Read the rows of a table, and check their answers against their contexts.

    Raises:
        InputError: An answer is not where its row says; the message names the row.
    """
    for name in (question, context, answers):
        table.find([], asked=name, option="--text, --text-pair or --label")
    rows = zip(table.texts(question), table.texts(context), table.values(answers), strict=True)
    return [
        AnsweredQuestion(
            asked,
            text,
            [_checked(*answer, text, table.where(index)) for answer in _pairs(value, table, index)],
        )
        for index, (asked, text, value) in enumerate(rows)
    ]


def _pairs(value: Any, table: Table, index: int) -> list[tuple[str, int]]:
    """Return answers with the places of their first characters, in whichever form they are written.

    An empty answer that begins at -1 means that there is none.
    """
    if is_missing(value):
        return []
    value = as_object(value) if isinstance(value, str) else value
    if isinstance(value, dict):
        texts = as_list(value.get("text"))
        starts = as_list(value.get("answer_start", value.get("start")))
        if texts is not None and starts is not None and len(starts) == len(texts):
            value = [{"text": t, "start": s} for t, s in zip(texts, starts, strict=True)]
    items = [value] if isinstance(value, dict) else as_list(value)
    pairs = []
    for item in [{}] if items is None else items:
        item = item if isinstance(item, dict) else {}
        text, start = item.get("text"), whole_number(item.get("answer_start", item.get("start")))
        if text == "" and start == -1:  # no answer, as some data sets have it
            continue
        if start is None or not isinstance(text, str):
            raise InputError(
                f"{table.where(index)}: got the answers {value!r}; expected a list of objects "
                "with text and answer_start, or SQuAD's two lists"
            )
        pairs.append((text, start))
    return pairs


def _checked(text: str, start: int, context: str, where: str) -> tuple[str, int]:
    stands = context[max(0, start) : max(0, start) + len(text)]
    if start < 0 or stands != text:
        hint = f"; it begins at {place}" if (place := context.find(text)) >= 0 else ""
        raise InputError(
            f"{where}: the answer {text!r} does not begin at {start} of its context, "
            f"which has {stands!r} there{hint}"
        )
    if not (bare := text.strip()):
        raise InputError(f"{where}: an answer is empty; leave it out where there is none")
    return bare, start + text.index(bare)


def _cut(
    source: LabelledTables, stride: int | None, row: AnsweredQuestion, number: int
) -> Iterator[AnswerWindow]:
    """Yield the windows of a row, with the places of its first answer."""
    for window in windows_of(
        source.tokenizer,
        row.question,
        row.context,
        number=number,
        max_seqlen=source.max_seqlen,
        stride=window_overlap(source.max_seqlen, stride),
    ):
        start, end = _places(window, row.answers)
        yield AnswerWindow(window, start, end, row)


def _places(window: Window, answers: Sequence[tuple[str, int]]) -> tuple[int, int]:
    """Return the first and the last token of the first answer; [CLS] if part of it is missing."""
    if not answers or not window.spans:
        return 0, 0
    text, begin = answers[0]
    end = begin + len(text)
    if begin < window.spans[0][0] or end > window.spans[-1][1]:
        return 0, 0
    inside = [i for i, (a, b) in enumerate(window.spans) if a < end and b > begin]
    return (window.first + inside[0], window.first + inside[-1]) if inside else (0, 0)


def _texts(answers: Sequence[tuple[str, int]]) -> list[str]:
    return [text for text, _ in answers]
