"""`Classifier`: a text, or a pair of texts, to labels with scores."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.devices import to_host
from modernbert.errors import InputError
from modernbert.inference.batching import Observer
from modernbert.inference.inputs import CutSide, EncodedText, Text, TextEncoder, require_list
from modernbert.inference.text_model import TextModel, Use
from modernbert.model.heads import ProblemType, SequenceClassifier


@dataclass(frozen=True)
class LabelScore:
    """One label and its score: a probability, or for a regression the predicted number."""

    label: str
    score: float


class Classifier(TextModel[SequenceClassifier]):
    """Tells which labels a text has; see `TextModel` for what it is made of."""

    model_class = SequenceClassifier
    kinds = "classifier", "reranker"

    @property
    def labels(self) -> Sequence[str]:
        """The names of the labels."""
        return self.model.labels

    @overload
    def __call__(
        self, text: Text, text_pair: str | None = None, *, top_k: int | None = None
    ) -> list[LabelScore]: ...

    @overload
    def __call__(self, text: list[Text], *, top_k: int | None = None) -> list[list[LabelScore]]: ...

    def __call__(
        self,
        text: Text | list[Text],
        text_pair: str | None = None,
        *,
        top_k: int | None = None,
    ) -> list[LabelScore] | list[list[LabelScore]]:
        """The labels of one text or of a pair, best first; of a list those of each, as `classify`.

        Args:
            text: A text, or a pair as a tuple; a list of them is a batch.
            text_pair: The second text of a pair.
            top_k: How many labels; all when None.

        Raises:
            InputError: Something else than that, or a `top_k` below 1.
        """
        if text_pair is not None:
            if not isinstance(text, str):
                raise InputError(f"text_pair: goes with one text, got a {type(text).__name__}")
            text = (text, text_pair)
        if not isinstance(text, str | tuple):
            return self.classify(text, top_k=top_k)
        (labels,) = self.classify([text], top_k=top_k)
        return labels

    def classify(
        self,
        texts: Iterable[Text],
        *,
        top_k: int | None = None,
        batch_tokens: int | None = None,
        on_progress: Observer | None = None,
    ) -> list[list[LabelScore]]:
        """The labels of each text, best first; the texts in their order.

        Texts longer than the model reads are cut, and a `TruncationWarning` says how many.

        Args:
            texts: The texts.
            top_k: How many labels of each; all when None.
            batch_tokens: The most tokens that are computed at once.
            on_progress: Is told after every batch.

        Raises:
            InputError: Something else than texts or pairs, or an option that cannot be.
        """
        return list(
            self.stream(texts, top_k=top_k, batch_tokens=batch_tokens, on_progress=on_progress)
        )

    def stream(
        self,
        texts: Iterable[Text],
        *,
        top_k: int | None = None,
        batch_tokens: int | None = None,
        on_progress: Observer | None = None,
    ) -> Iterator[list[LabelScore]]:
        """As `classify`, for any number of texts in bounded memory."""
        require_list(texts, "texts")
        blocks = self.blocks(
            self.use(top_k=top_k), texts, batch_tokens=batch_tokens, on_progress=on_progress
        )
        return (labels for block in blocks for labels in block)

    def logits(
        self,
        texts: Iterable[Text],
        *,
        batch_tokens: int | None = None,
        on_progress: Observer | None = None,
    ) -> Iterator[Tensor]:
        """Compute the model's outputs: blocks of any number of rows, (rows, num_labels) float32."""
        require_list(texts, "texts")
        blocks = self.blocks(
            self.logits_use(), texts, batch_tokens=batch_tokens, on_progress=on_progress
        )
        return (torch.stack(list(block)) for block in blocks)

    def logits_use(
        self, *, cut: CutSide = "right", prompt: str = ""
    ) -> Use[Text, EncodedText, Tensor, Tensor]:
        """Texts or pairs to the model's outputs; see `TextEncoder` for the arguments."""
        return Use(
            name="logits",
            encode=TextEncoder(self.tokenizer, self.max_seqlen, cut=cut, prompt=prompt),
            compute=self.compute,
            finish=lambda _, logits: logits,
            max_seqlen=self.max_seqlen,
        )

    def use(
        self,
        *,
        top_k: int | None = None,
        activate: Callable[[Tensor], Tensor] | None = None,
        cut: CutSide = "right",
    ) -> Use[Text, EncodedText, Tensor, list[LabelScore]]:
        """Texts or pairs to labels, best first.

        Args:
            top_k: How many labels of each; all when None.
            activate: Another function than the model's own that makes scores of its outputs,
                (rows, num_labels).
            cut: The side on which a text that is too long loses tokens.

        Raises:
            InputError: A `top_k` below 1.
        """
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k: got {top_k}, expected 1 or more")
        problem = self.model.settings.problem

        def finish(_: Sequence[EncodedText], logits: Sequence[Tensor]) -> list[list[LabelScore]]:
            rows = torch.stack(list(logits))
            scores = as_scores(rows, problem) if activate is None else activate(rows)
            return [self.ranked(row, top_k) for row in scores]

        return replace(self.logits_use(cut=cut), finish=finish)  # type: ignore[return-value, arg-type]

    def compute(self, batch: PackedBatch) -> Sequence[Tensor]:
        """For each sequence its logits, (num_labels,) float32, on the CPU."""
        logits: Tensor = self.model(batch)
        return to_host(logits.float()).unbind()

    def ranked(self, scores: Tensor, top_k: int | None = None) -> list[LabelScore]:
        """The labels of one text by their scores, (num_labels,), best first."""
        order = scores.argsort(descending=True, stable=True)[:top_k].tolist()
        values = scores.tolist()
        return [LabelScore(self.labels[index], values[index]) for index in order]


def as_scores(logits: Tensor, problem: ProblemType) -> Tensor:
    """Probabilities that sum to 1, probabilities for each label alone, or plain numbers.

    Args:
        logits: (rows, num_labels) float32.
        problem: The kind of problem that the classifier solves.
    """
    if problem == "single_label":
        return logits.softmax(-1)
    return logits.sigmoid() if problem == "multi_label" else logits
