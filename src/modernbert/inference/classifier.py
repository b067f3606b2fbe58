"""`Classifier`: labels with scores for a text or a pair of texts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Unpack, overload

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.devices import to_host
from modernbert.errors import InputError
from modernbert.inference.batching import RunOptions
from modernbert.inference.inputs import CutSide, EncodedText, Text, TextEncoder, require_list
from modernbert.inference.text_model import TextModel, Use
from modernbert.model.heads import ProblemType, SequenceClassifier


@dataclass(frozen=True)
class LabelScore:
    """A label and its score: a probability, or the predicted number of a regression.

    Attributes:
        is_chosen: Whether the text has the label, by the model's threshold for it, where a text may
            have any number of labels; None where it has one.
    """

    label: str
    score: float
    is_chosen: bool | None = None


class Classifier(TextModel[SequenceClassifier]):
    """Predicts the labels of texts; `TextModel` describes its arguments."""

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
        self, texts: Iterable[Text], *, top_k: int | None = None, **options: Unpack[RunOptions]
    ) -> list[list[LabelScore]]:
        """Predict the labels of many texts.

        Texts longer than the model can read are truncated, and a `TruncationWarning` says how many
        were.

        Args:
            texts: Any number of texts or pairs of texts.
            top_k: The number of labels to return for each text; all by default.
            **options: As in `RunOptions`.

        Returns:
            The labels of each text, best first, in the order of the texts.

        Raises:
            InputError: Something is not a text or a pair of texts, or an option is not valid.
        """
        return list(self.stream(texts, top_k=top_k, **options))

    def stream(
        self, texts: Iterable[Text], *, top_k: int | None = None, **options: Unpack[RunOptions]
    ) -> Iterator[list[LabelScore]]:
        """Predict labels as `classify` does, for any number of texts in bounded memory.

        Args:
            texts: Texts or pairs of texts, which are read as the results are taken.
            top_k: The number of labels to yield for each text; all by default.
            **options: As in `RunOptions`.

        Raises:
            InputError: Something is not a text or a pair of texts, or an option is not valid.
        """
        require_list(texts, "texts")
        blocks = self.blocks(self.use(top_k=top_k), texts, **options)
        return (labels for block in blocks for labels in block)

    def logits(self, texts: Iterable[Text], **options: Unpack[RunOptions]) -> Iterator[Tensor]:
        """Compute the model's outputs before they become probabilities.

        Args:
            texts: Texts or pairs of texts, which are read as the results are taken.
            **options: As in `RunOptions`.

        Yields:
            (num_texts, num_labels) float32, the next texts in each block.

        Raises:
            InputError: Something is not a text or a pair of texts.
        """
        require_list(texts, "texts")
        blocks = self.blocks(self.logits_use(), texts, **options)
        return (torch.stack(list(block)) for block in blocks)

    def logits_use(
        self, *, cut: CutSide = "right", prompt: str = ""
    ) -> Use[Text, EncodedText, Tensor, Tensor]:
        """Describe how texts or pairs become outputs; see `TextEncoder` for the arguments."""
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
        """Describe how texts or pairs become labels, best first.

        Args:
            top_k: The number of labels of each text; all by default.
            activate: The function that turns outputs, (rows, num_labels), into scores, if it should
                differ from the model's own.
            cut: The side on which texts that are too long are truncated.

        Raises:
            InputError: `top_k` is below 1.
        """
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k: got {top_k}, expected 1 or more")
        settings = self.model.settings
        thresholds = None
        if settings.problem == "multi_label" and activate is None:
            thresholds = settings.thresholds or (0.5,) * len(self.labels)

        def finish(_: Sequence[EncodedText], logits: Sequence[Tensor]) -> list[list[LabelScore]]:
            rows = torch.stack(list(logits))
            if activate is not None:
                scores = activate(rows)
            else:
                scores = as_scores(rows, settings.problem, settings.temperature)
            return [self.ranked(row, top_k, thresholds) for row in scores]

        return replace(self.logits_use(cut=cut), finish=finish)  # type: ignore[return-value, arg-type]

    def compute(self, batch: PackedBatch) -> Sequence[Tensor]:
        """Return the logits of each sequence, (num_labels,) float32, on the CPU."""
        logits: Tensor = self.model(batch)
        return to_host(logits.float()).unbind()

    def ranked(
        self,
        scores: Tensor,
        top_k: int | None = None,
        thresholds: Sequence[float] | None = None,
    ) -> list[LabelScore]:
        """Sort the labels of one text by their scores, best first.

        Args:
            scores: (num_labels,).
            top_k: The number of labels to return; all by default.
            thresholds: The least score of each label that a text has, if it may have several.
        """
        order = scores.argsort(descending=True, stable=True)[:top_k].tolist()
        values = scores.tolist()
        chosen = [
            None if thresholds is None else value >= thresholds[index]
            for index, value in enumerate(values)
        ]
        return [LabelScore(self.labels[at], values[at], chosen[at]) for at in order]


def as_scores(logits: Tensor, problem: ProblemType, temperature: float = 1.0) -> Tensor:
    """Turn outputs into probabilities that sum to 1, one probability per label, or numbers.

    Args:
        logits: (rows, num_labels) float32.
        problem: Whether a text has one label, any number of labels, or a number.
        temperature: What outputs are divided by before they become probabilities.
    """
    if problem == "single_label":
        return (logits / temperature).softmax(-1)
    return (logits / temperature).sigmoid() if problem == "multi_label" else logits
