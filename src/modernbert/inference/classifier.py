"""`Classifier`: a text, or a pair of texts, to labels with scores."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import InputError
from modernbert.inference.batching import Observer, Work, batch_tokens_for
from modernbert.inference.inputs import (
    EncodedText,
    Text,
    TextEncoder,
    Watched,
    num_characters,
    require_list,
)
from modernbert.inference.loading import (
    device_of,
    load_for_inference,
    longest_sequence,
    require_same_vocabulary,
)
from modernbert.model.heads import ProblemType, SequenceClassifier
from modernbert.model.precision import PrecisionChoice
from modernbert.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class LabelScore:
    """One label and its score: a probability, or for a regression the predicted number."""

    label: str
    score: float


class Classifier:
    """Tells which labels a text has.

    model: on any device, in any precision.
    tokenizer: the one that the model was trained with.
    max_seqlen: the longest sequence in tokens; None for what the model reads.

    Raises:
        InputError: a tokenizer of another vocabulary, or a longest sequence that cannot be read.
    """

    def __init__(
        self, model: SequenceClassifier, tokenizer: Tokenizer, *, max_seqlen: int | None = None
    ) -> None:
        require_same_vocabulary(model.config, tokenizer)
        self.model, self.tokenizer = model, tokenizer
        self.max_seqlen = longest_sequence(model.config, tokenizer, max_seqlen)

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: Path | str,
        *,
        precision: PrecisionChoice = "auto",
        max_seqlen: int | None = None,
    ) -> "Classifier":
        """Load a model that classifies texts, and its tokenizer.

        Raises:
            ModelFolderError: no such model, or one that cannot be used.
            TokenizerError: no tokenizer beside it, or one that cannot be used.
            ConfigError: a precision that cannot be had here.
            InputError: a tokenizer of another vocabulary.
        """
        loaded = load_for_inference(SequenceClassifier, folder_or_hub_id, precision)
        return cls(*loaded, max_seqlen=max_seqlen)

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
            self._ranked(scores, top_k)
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
        device = device_of(self.model)
        work = Work(
            encode=TextEncoder(self.tokenizer, self.max_seqlen),
            compute=self._logits,
            size=num_characters,
            device=device,
            batch_tokens=batch_tokens_for(device, batch_tokens),
        )
        return self._blocks(work, texts, Watched(on_progress))

    def _blocks(
        self, work: Work[Text, EncodedText, Tensor], texts: Iterable[Text], watched: Watched
    ) -> Iterator[Tensor]:
        for window in work.run(texts, watched):
            yield torch.stack([logits for _, logits in window])
        watched.warn_of_truncated(self.max_seqlen)

    def _logits(self, batch: PackedBatch) -> Sequence[Tensor]:
        logits: Tensor = self.model(batch)
        return logits.float().cpu().unbind()

    def _ranked(self, scores: Tensor, top_k: int | None) -> list[LabelScore]:
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
