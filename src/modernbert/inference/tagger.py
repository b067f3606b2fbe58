"""`Tagger`: a text, or words that someone else split, to entities."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.devices import to_host
from modernbert.inference.batching import Observer
from modernbert.inference.inputs import require_list
from modernbert.inference.text_model import TextModel, Use
from modernbert.inference.words import EncodedWords, TextOrWords, encode, num_characters
from modernbert.metrics.entities import entity_spans
from modernbert.model.heads import TokenClassifier


@dataclass(frozen=True)
class Entity:
    """A stretch of a text, or of a list of words, that has one label.

    label: the kind, without B- or I-.
    score: the mean of its words' probabilities.
    start, end: the characters of the text, or the words of the list; `end` is exclusive.
    """

    label: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class LabelledSpan:
    """A word, or another piece of a text, with its label as the model gives it."""

    label: str
    score: float
    start: int
    end: int


def merged(spans: Iterable[LabelledSpan]) -> list[Entity]:
    """The entities of spans that come in the order of the text.

    >>> spans = [("B-PER", 0, 5), ("I-PER", 6, 9), ("O", 10, 13), ("B-LOC", 14, 19)]
    >>> for entity in merged(LabelledSpan(label, 1.0, *span) for label, *span in spans):
    ...     print(entity)
    Entity(label='PER', score=1.0, start=0, end=9)
    Entity(label='LOC', score=1.0, start=14, end=19)
    """
    words = list(spans)
    return [
        Entity(
            label=kind,
            score=sum(word.score for word in words[first:end]) / (end - first),
            start=words[first].start,
            end=words[end - 1].end,
        )
        for kind, first, end in entity_spans([word.label for word in words])
    ]


class Tagger(TextModel[TokenClassifier]):
    """Finds the entities of a text: names, say, or whatever the model was trained to mark.

    A word has the label of its first token, as in training. See `TextModel` for what it is made
    of.
    """

    model_class = TokenClassifier
    kinds = ("tagger",)

    @property
    def labels(self) -> Sequence[str]:
        """The names of the labels, with their B- and I-."""
        return self.model.labels

    def __call__(self, text: TextOrWords) -> list[Entity]:
        """The entities of one text, or of one list of words, in their order.

        Raises:
            InputError: something else than a text or a list of words.
        """
        (entities,) = self.tag([text])
        return entities

    def tag(
        self,
        texts: Iterable[TextOrWords],
        *,
        batch_tokens: int | None = None,
        on_progress: Observer | None = None,
    ) -> list[list[Entity]]:
        """The entities of each text; the texts in their order.

        Texts longer than the model reads are cut, and a `TruncationWarning` says how many.

        batch_tokens: the most tokens that are computed at once.
        on_progress: is told after every batch.

        Raises:
            InputError: something else than texts, or an option that cannot be.
        """
        return list(self.stream(texts, batch_tokens=batch_tokens, on_progress=on_progress))

    def stream(
        self,
        texts: Iterable[TextOrWords],
        *,
        batch_tokens: int | None = None,
        on_progress: Observer | None = None,
    ) -> Iterator[list[Entity]]:
        """As `tag`, for any number of texts in bounded memory."""
        require_list(texts, "texts")
        blocks = self.blocks(self.use(), texts, batch_tokens=batch_tokens, on_progress=on_progress)
        return (entities for block in blocks for entities in block)

    def words(
        self,
        texts: Iterable[TextOrWords],
        *,
        batch_tokens: int | None = None,
        on_progress: Observer | None = None,
    ) -> Iterator[list[LabelledSpan]]:
        """Each word of each text with its likeliest label."""
        require_list(texts, "texts")
        entities: Use[Any, Any, Any, Any] = self.use()
        use = replace(entities, finish=self._labelled)
        blocks = self.blocks(use, texts, batch_tokens=batch_tokens, on_progress=on_progress)
        return (words for block in blocks for words in block)

    def use(self) -> Use[TextOrWords, EncodedWords, tuple[Tensor, Tensor], list[Entity]]:
        """Texts, or lists of words, to entities."""
        return Use(
            name="labels",
            encode=self.encode,
            compute=self.compute,
            finish=lambda encoded, computed: [
                merged(words) for words in self._labelled(encoded, computed)
            ],
            max_seqlen=self.max_seqlen,
            size=num_characters,
        )

    def _labelled(
        self, encoded: Sequence[EncodedWords], computed: Sequence[tuple[Tensor, Tensor]]
    ) -> list[list[LabelledSpan]]:
        return [self.labelled(*each) for each in zip(encoded, computed, strict=True)]

    def labelled(
        self, encoded: EncodedWords, computed: tuple[Tensor, Tensor]
    ) -> list[LabelledSpan]:
        """The words of one text, of which `compute` told the labels of the tokens."""
        scores, indices = (values.tolist() for values in computed)
        return [
            LabelledSpan(self.labels[indices[place]], scores[place], *span)
            for place, span in zip(encoded.first_tokens, encoded.spans, strict=True)
        ]

    def compute(self, batch: PackedBatch) -> Sequence[tuple[Tensor, Tensor]]:
        """For each sequence the probability of each token's likeliest label, and its index."""
        best = self.model(batch).float().softmax(-1).max(-1)
        scores, indices = batch.split(to_host(best.values)), batch.split(to_host(best.indices))
        return list(zip(scores, indices, strict=True))

    def encode(self, texts: Sequence[TextOrWords]) -> list[EncodedWords]:
        """The tokens and the words of each text."""
        return [encode(self.tokenizer, text, self.max_seqlen) for text in texts]
