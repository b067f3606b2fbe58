"""`Tagger`: a text, or words that someone else split, to entities."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.inference.batching import Observer, Work, batch_tokens_for
from modernbert.inference.entities import Entity, LabelledSpan, merged
from modernbert.inference.inputs import Watched, require_list
from modernbert.inference.loading import (
    device_of,
    load_for_inference,
    longest_sequence,
    require_same_vocabulary,
)
from modernbert.inference.words import EncodedWords, TextOrWords, encode, num_characters
from modernbert.model.heads import TokenClassifier
from modernbert.model.precision import PrecisionChoice
from modernbert.tokenizer.tokenizer import Tokenizer


class Tagger:
    """Finds the entities of a text: names, say, or whatever the model was trained to mark.

    A word has the label of its first token, as in training.

    model: on any device, in any precision.
    tokenizer: the one that the model was trained with.
    max_seqlen: the longest sequence in tokens; None for what the model reads.

    Raises:
        InputError: a tokenizer of another vocabulary, or a longest sequence that cannot be read.
    """

    def __init__(
        self, model: TokenClassifier, tokenizer: Tokenizer, *, max_seqlen: int | None = None
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
    ) -> "Tagger":
        """Load a model that classifies tokens, and its tokenizer.

        Raises:
            ModelFolderError: no such model, or one that cannot be used.
            TokenizerError: no tokenizer beside it, or one that cannot be used.
            ConfigError: a precision that cannot be had here.
            InputError: a tokenizer of another vocabulary.
        """
        loaded = load_for_inference(TokenClassifier, folder_or_hub_id, precision)
        return cls(*loaded, max_seqlen=max_seqlen)

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
        words = self.words(texts, batch_tokens=batch_tokens, on_progress=on_progress)
        return (merged(each) for each in words)

    def words(
        self,
        texts: Iterable[TextOrWords],
        *,
        batch_tokens: int | None = None,
        on_progress: Observer | None = None,
    ) -> Iterator[list[LabelledSpan]]:
        """Each word of each text with its likeliest label."""
        require_list(texts, "texts")
        device = device_of(self.model)
        work = Work(
            encode=self._encode,
            compute=self._likeliest,
            size=num_characters,
            device=device,
            batch_tokens=batch_tokens_for(device, batch_tokens),
        )
        return self._labelled(work, texts, Watched(on_progress))

    def _labelled(
        self,
        work: Work[TextOrWords, EncodedWords, tuple[Tensor, Tensor]],
        texts: Iterable[TextOrWords],
        watched: Watched,
    ) -> Iterator[list[LabelledSpan]]:
        for window in work.run(texts, watched):
            for encoded, (scores, indices) in window:
                yield [
                    LabelledSpan(self.labels[int(indices[place])], float(scores[place]), *span)
                    for place, span in zip(encoded.first_tokens, encoded.spans, strict=True)
                ]
        watched.warn_of_truncated(self.max_seqlen)

    def _likeliest(self, batch: PackedBatch) -> Sequence[tuple[Tensor, Tensor]]:
        """For each sequence the probability of each token's likeliest label, and its index."""
        best = self.model(batch).float().softmax(-1).max(-1)
        scores, indices = batch.split(best.values.cpu()), batch.split(best.indices.cpu())
        return list(zip(scores, indices, strict=True))

    def _encode(self, texts: list[TextOrWords]) -> list[EncodedWords]:
        return [encode(self.tokenizer, text, self.max_seqlen) for text in texts]
