"""`TextModel`: a model with its tokenizer; `Use`: one thing that it is used for.

    items -> encode -> sequences of token ids -> compute, in batches -> finish -> results

Whoever runs it, `TextModel` over any number of items or the server over those of many requests,
decides which sequences share a batch. Results that are not finite are refused here, for all.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import ResultError
from modernbert.inference.batching import Observer, Work, batch_tokens_for
from modernbert.inference.inputs import Watched, each_item, num_characters
from modernbert.inference.loading import (
    device_of,
    load_for_inference,
    longest_sequence,
    require_same_vocabulary,
)
from modernbert.kinds import ModelKind
from modernbert.model.encoder import Encoder
from modernbert.model.precision import PrecisionChoice
from modernbert.model.pretrained import SavedModel
from modernbert.tokenizer.tokenizer import Tokenizer

T = TypeVar("T")
E = TypeVar("E")
R = TypeVar("R")
O = TypeVar("O")  # noqa: E741


@dataclass(frozen=True, kw_only=True)
class Use(Generic[T, E, R, O]):
    """One use of one model.

    Attributes:
        name: What is computed; uses of a model that have the same name may share batches.
        encode: Items to what is known of each, with its token ids.
        compute: A batch to one result for each sequence, in their order, on the CPU.
        finish: What is known of some items, and what was computed of each, to their results.
        max_seqlen: The longest sequence that is read, in tokens.
        size: The size of an item, in characters.
    """

    name: Hashable
    encode: Callable[[list[T]], list[E]]
    compute: Callable[[PackedBatch], Sequence[R]]
    finish: Callable[[Sequence[E], Sequence[R]], Sequence[O]]
    max_seqlen: int
    size: Callable[[Any], int] = num_characters

    def results(
        self, encoded: Sequence[E], computed: Sequence[R], *, first: int = 0
    ) -> Sequence[O]:
        """Finish some items.

        Args:
            encoded: What `encode` gave.
            computed: What `compute` gave for each of them.
            first: The place of the first of these items, for a message.

        Raises:
            ResultError: A number that is not finite.
        """
        for place, result in enumerate(computed, start=first):
            if not _is_finite(result):
                raise ResultError(
                    f"text {place}: the model gave numbers that are not finite; its weights may be "
                    "damaged, or too large for this precision: try float32"
                )
        return self.finish(encoded, computed)


def _is_finite(result: Any) -> bool:
    if isinstance(result, Tensor):
        return not result.is_floating_point() or bool(result.isfinite().all())
    return all(map(_is_finite, result))


M = TypeVar("M", bound=SavedModel)


class TextModel(Generic[M]):
    """What the classes that use one model have in common: loading it, and running texts through.

    Attributes:
        model: On any device, in any precision.
        tokenizer: The one that the model was trained with.
        max_seqlen: The longest sequence in tokens; None for what the model reads.

    Raises:
        InputError: A tokenizer of another vocabulary, or a longest sequence that cannot be read.
    """

    model_class: ClassVar[type[SavedModel]]
    kinds: ClassVar[tuple[ModelKind, ...]]
    """What a folder is for from which such a model can be loaded."""

    def __init__(self, model: M, tokenizer: Tokenizer, *, max_seqlen: int | None = None) -> None:
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
    ) -> Self:
        """Load the model of a folder, or of the hub, and its tokenizer.

        Raises:
            ModelFolderError: No such model, one of another kind, or one that cannot be used.
            TokenizerError: No tokenizer beside it, or one that cannot be used.
            ConfigError: A precision that cannot be had here.
            InputError: A tokenizer of another vocabulary.
        """
        model: Any
        model, tokenizer = load_for_inference(
            cls.model_class, folder_or_hub_id, precision, cls.kinds
        )
        return cls(model, tokenizer, max_seqlen=max_seqlen)

    def compile(self) -> Self:
        """Have torch's compiler fuse the layers on a GPU; see `Encoder.compile_for_inference`.

        The first batch then waits for the compiler.
        """
        model: Any = self.model
        encoder: Encoder = model if isinstance(model, Encoder) else model.encoder
        encoder.compile_for_inference()
        return self

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return device_of(self.model)

    def blocks(
        self,
        use: Use[T, E, R, O],
        items: Iterable[T],
        *,
        batch_tokens: int | None = None,
        on_progress: Observer | None = None,
    ) -> Iterator[Sequence[O]]:
        """Run any number of items through a use of this model, in bounded memory.

        A `TruncationWarning` says at the end how many were longer than the model reads.

        Args:
            use: What is done with the items.
            items: Read one after another, when they are needed.
            batch_tokens: The most tokens that are computed at once.
            on_progress: Is called after every batch.

        Returns:
            The results in the order of the items, some at a time.

        Raises:
            InputError: Items that cannot be encoded, or a `batch_tokens` below 1.
            ResultError: Results that are not finite.
        """
        work: Work[T, E, R] = Work(
            encode=use.encode,
            compute=use.compute,
            size=use.size,
            device=self.device,
            batch_tokens=batch_tokens_for(self.device, batch_tokens),
        )
        return self._blocks(use, work, items, Watched(on_progress))

    def _blocks(
        self, use: Use[T, E, R, O], work: Work[T, E, R], items: Iterable[T], watched: Watched
    ) -> Iterator[Sequence[O]]:
        num_done = 0
        for window in work.run(each_item(items), watched):
            encoded, computed = zip(*window, strict=True)
            yield use.results(encoded, computed, first=num_done)
            num_done += len(window)
        watched.warn_of_truncated(use.max_seqlen)
