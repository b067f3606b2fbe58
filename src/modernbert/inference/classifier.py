"""`Classifier`: a text, or a pair of texts, to labels with scores."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.device_copies import to_host
from modernbert.errors import InputError
from modernbert.inference.batching import Observer
from modernbert.inference.inputs import EncodedText, Text, require_list
from modernbert.inference.text_model import TextModel
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

    def __call__(self, text: Text, *, top_k: int | None = None) -> list[LabelScore]:
        """The labels of one text, or of a pair of texts as a tuple, best first.

        top_k: how many labels; all when None.

        Raises:
            InputError: something else than a text or a pair, or a top_k below 1.
        """
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

        top_k: how many labels of each; all when None.
        batch_tokens: the most tokens that are computed at once.
        on_progress: is told after every batch.

        Raises:
            InputError: something else than texts or pairs, or an option that cannot be.
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
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k: got {top_k}, expected 1 or more")
        blocks = self.logits(texts, batch_tokens=batch_tokens, on_progress=on_progress)
        return (
            self.ranked(scores, top_k)
            for block in blocks
            for scores in as_scores(block, self.model.settings.problem)
        )

    def logits(
        self,
        texts: Iterable[Text],
        *,
        batch_tokens: int | None = None,
        on_progress: Observer | None = None,
    ) -> Iterator[Tensor]:
        """What the model puts out for any number of texts: blocks (rows, num_labels) float32."""
        require_list(texts, "texts")
        windows: Iterator[list[tuple[EncodedText, Tensor]]] = self.run(
            texts, self.compute, batch_tokens=batch_tokens, on_progress=on_progress
        )
        return (torch.stack([logits for _, logits in window]) for window in windows)

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

    logits: (rows, num_labels) float32.
    """
    if problem == "single_label":
        return logits.softmax(-1)
    return logits.sigmoid() if problem == "multi_label" else logits
