"""`Tagger`: a text of any length, or words that someone else split, to entities."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack, overload

from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.devices import to_host
from modernbert.errors import InputError
from modernbert.inference.batching import InWindows, RunOptions
from modernbert.inference.inputs import require_list
from modernbert.inference.loading import load_for_inference, window_overlap
from modernbert.inference.text_model import TextModel, Use
from modernbert.metrics.spans import entity_spans
from modernbert.model.choices import PrecisionChoice
from modernbert.model.heads import TokenClassifier
from modernbert.tokenizer.texts import WordEncoding, require_text
from modernbert.tokenizer.tokenizer import Tokenizer
from modernbert.word_splitting import WordSplitting

TextOrWords = str | Sequence[str]
Labels = Sequence[tuple[Tensor, Tensor]]
"""Of each window the probability of each token's likeliest label, and the label's index."""


@dataclass(frozen=True)
class WordWindow:
    """A part of a text's words as one sequence."""

    token_ids: list[int]

    is_truncated = False  # what one window lacks is in another


@dataclass(frozen=True)
class EncodedWords(InWindows):
    """Words as one sequence or several.

    Attributes:
        windows: The sequences; neighbours overlap.
        places: For each word, its window and the place of its first token there.
        spans: The start and the end of each word, in characters of the text or as its own number.
    """

    windows: Sequence[WordWindow]
    places: list[tuple[int, int]]
    spans: list[tuple[int, int]]


def encode(
    tokenizer: Tokenizer,
    text: TextOrWords,
    splitting: WordSplitting,
    *,
    max_seqlen: int,
    stride: int,
) -> EncodedWords:
    """Encode the words of a text, or those of a list.

    Args:
        tokenizer: The model's.
        text: A text, or its words.
        splitting: How a text is split into words.
        max_seqlen: The longest window, in tokens.
        stride: How many tokens two neighbouring windows share.

    Raises:
        InputError: Words that are no str.
    """
    if isinstance(text, str):
        spans = splitting.spans(require_text(text, "text"))
        words = [text[start:end] for start, end in spans]
    else:
        words = list(text)
        spans = [(number, number + 1) for number in range(len(words))]
    encoding = tokenizer.encode_words(words)
    num_before = len(tokenizer.template.before)
    rows, step = _windows(
        tokenizer.template.bare(encoding.token_ids), tokenizer, max_seqlen, stride
    )
    places = []
    for first in (place - num_before for place in first_tokens(encoding)):
        # A word that two windows hold belongs to the one in which more stands around it.
        window = min(max(0, first - stride // 2) // step, len(rows) - 1)
        places.append((window, first - window * step + num_before))
    return EncodedWords([WordWindow(row) for row in rows], places, spans)


def first_tokens(encoding: WordEncoding) -> list[int]:
    """Return the place of the first token of each word that is not cut off."""
    firsts: dict[int, int] = {}
    for place, word in enumerate(encoding.word_ids):
        if word is not None:
            firsts.setdefault(word, place)
    return list(firsts.values())


def num_characters(text: object) -> int:
    """Return the size of a text or of a list of words.

    Raises:
        InputError: Something else.
    """
    if isinstance(text, str):
        return len(text)
    if not isinstance(text, list | tuple):
        raise InputError(f"texts: got {type(text).__name__}, expected a str or a list of words")
    return sum(len(word) for word in text if isinstance(word, str))


def _windows(
    token_ids: Sequence[int], tokenizer: Tokenizer, max_seqlen: int, stride: int
) -> tuple[list[list[int]], int]:
    """The windows of the tokens of a text, and by how many tokens each begins after the last."""
    room = max_seqlen - tokenizer.template.num_special(1)
    step = room - stride
    if step < 1:
        raise InputError(
            f"stride: got {stride} with room for {room} tokens in a window; expected less"
        )
    starts = range(0, max(1, len(token_ids) - stride), step)
    return [tokenizer.template.frame(token_ids[start : start + room]) for start in starts], step


@dataclass(frozen=True)
class Entity:
    """A part of a text, or of a list of words, that has one label.

    Attributes:
        label: The kind of the entity, without B- or I-.
        score: The mean of the probabilities of its words.
        start: The first character of the text, or the first word of the list.
        end: The character or word after its last.
    """

    label: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class LabelledSpan:
    """A word, or another part of a text, with the label that the model predicts."""

    label: str
    score: float
    start: int
    end: int


def merged(spans: Iterable[LabelledSpan]) -> list[Entity]:
    """Merge labelled spans, in the order of the text, into entities.

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
    """Finds the entities of texts: names, or whatever the model was trained to tag.

    A text is split into words as the model's training data were, and a word has the label of its
    first token, as in training. A text that is longer than the model reads is read in windows that
    overlap.

    Args:
        model: On any device, in any precision.
        tokenizer: The one that the model was trained with.
        max_seqlen: The longest window, in tokens; None for what the model reads.
        stride: How many tokens two neighbouring windows share; a quarter of a window at most.
        splitting: How a text is split into words; None for what the model's folder says, or for
            the default where it says nothing.

    Raises:
        InputError: A tokenizer of another vocabulary, or a longest window that cannot be read.
    """

    model_class = TokenClassifier
    kinds = ("tagger",)

    def __init__(
        self,
        model: TokenClassifier,
        tokenizer: Tokenizer,
        *,
        max_seqlen: int | None = None,
        stride: int | None = None,
        splitting: WordSplitting | None = None,
    ) -> None:
        super().__init__(model, tokenizer, max_seqlen=max_seqlen)
        self.stride = window_overlap(self.max_seqlen, stride)
        if not isinstance(splitting, WordSplitting | None):
            raise InputError(
                f"splitting: got {splitting!r}, expected a WordSplitting, such as "
                'WordSplitting(at="blanks")'
            )
        self.splitting = splitting or model.settings.splitting or WordSplitting()

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: Path | str,
        *,
        precision: PrecisionChoice = "auto",
        max_seqlen: int | None = None,
        stride: int | None = None,
        splitting: WordSplitting | None = None,
    ) -> "Tagger":
        """Load a model that labels words, and its tokenizer.

        Args:
            folder_or_hub_id: The folder of the model or of a run, or a hub id.
            precision: The precision to compute in.
            max_seqlen: As in the constructor.
            stride: As in the constructor.
            splitting: As in the constructor.

        Raises:
            ModelFolderError: There is no such model, it has another kind, or it cannot be used.
            TokenizerError: The model has no tokenizer, or it cannot be used.
            ConfigError: The device does not support the precision.
            InputError: The tokenizer has another vocabulary, or an option is not valid.
        """
        loaded = load_for_inference(TokenClassifier, folder_or_hub_id, precision, cls.kinds)
        return cls(*loaded, max_seqlen=max_seqlen, stride=stride, splitting=splitting)

    @property
    def labels(self) -> Sequence[str]:
        """The names of the labels, including B- and I-."""
        return self.model.labels

    @overload
    def __call__(self, text: str) -> list[Entity]: ...

    @overload
    def __call__(self, text: list[TextOrWords]) -> list[list[Entity]]: ...

    def __call__(self, text: str | list[TextOrWords]) -> list[Entity] | list[list[Entity]]:
        """Return the entities of one text, in their order; for a list what `tag` returns.

        Args:
            text: A text. A list is a batch, in which a list of words is a text too.

        Raises:
            InputError: Something else than that.
        """
        if not isinstance(text, str):
            return self.tag(text)
        (entities,) = self.tag([text])
        return entities

    def tag(
        self, texts: Iterable[TextOrWords], **options: Unpack[RunOptions]
    ) -> list[list[Entity]]:
        """Find the entities of many texts.

        Args:
            texts: Texts, or texts that are split into words already.
            **options: As in `RunOptions`.

        Returns:
            The entities of each text, in the order of the texts.

        Raises:
            InputError: Something is not a text or a list of words, or an option is not valid.
        """
        return list(self.stream(texts, **options))

    def stream(
        self, texts: Iterable[TextOrWords], **options: Unpack[RunOptions]
    ) -> Iterator[list[Entity]]:
        """Find entities as `tag` does, for any number of texts in bounded memory.

        Args:
            texts: Texts or lists of words, which are read as the results are taken.
            **options: As in `RunOptions`.

        Raises:
            InputError: Something is not a text or a list of words, or an option is not valid.
        """
        require_list(texts, "texts")
        blocks = self.blocks(self.use(), texts, **options)
        return (entities for block in blocks for entities in block)

    def words(
        self, texts: Iterable[TextOrWords], **options: Unpack[RunOptions]
    ) -> Iterator[list[LabelledSpan]]:
        """Yield the words of each text with their most likely labels.

        Args:
            texts: Texts or lists of words, which are read as the results are taken.
            **options: As in `RunOptions`.

        Raises:
            InputError: Something is not a text or a list of words, or an option is not valid.
        """
        require_list(texts, "texts")
        entities: Use[Any, Any, Any, Any] = self.use()
        use = replace(entities, finish=self._labelled)
        blocks = self.blocks(use, texts, **options)
        return (words for block in blocks for words in block)

    def use(self) -> Use[TextOrWords, EncodedWords, Labels, list[Entity]]:
        """Describe how texts, or lists of words, become entities."""
        return Use(
            name="labels",
            encode=self.encode,
            compute=self.compute,  # type: ignore[arg-type]
            finish=lambda encoded, computed: [
                merged(words) for words in self._labelled(encoded, computed)
            ],
            max_seqlen=self.max_seqlen,
            size=num_characters,
        )

    def _labelled(
        self, encoded: Sequence[EncodedWords], computed: Sequence[Labels]
    ) -> list[list[LabelledSpan]]:
        return [self.labelled(*each) for each in zip(encoded, computed, strict=True)]

    def labelled(self, encoded: EncodedWords, computed: Labels) -> list[LabelledSpan]:
        """Return the labelled words of one text from the labels of its windows' tokens."""
        windows = [(scores.tolist(), indices.tolist()) for scores, indices in computed]
        found = []
        for (window, place), span in zip(encoded.places, encoded.spans, strict=True):
            scores, indices = windows[window]
            found.append(LabelledSpan(self.labels[indices[place]], scores[place], *span))
        return found

    def compute(self, batch: PackedBatch) -> Sequence[tuple[Tensor, Tensor]]:
        """Return the probability and the index of each token's most likely label, by sequence."""
        best = self.model(batch).float().softmax(-1).max(-1)
        scores, indices = batch.split(to_host(best.values)), batch.split(to_host(best.indices))
        return list(zip(scores, indices, strict=True))

    def encode(self, texts: Sequence[TextOrWords]) -> list[EncodedWords]:
        """Return the tokens and the words of each text."""
        return [
            encode(
                self.tokenizer,
                text,
                self.splitting,
                max_seqlen=self.max_seqlen,
                stride=self.stride,
            )
            for text in texts
        ]
