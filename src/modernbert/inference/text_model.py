"""`TextModel`: a model with its tokenizer; `Use`: one way in which it is used.

    items -> encode -> sequences of token ids -> compute, in batches -> finish -> results

The caller decides which sequences share a batch: `TextModel` for any number of items, or the server
for those of many requests. Results that are not finite are refused here, for all callers.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor

from modernbert.batch import PackedBatch
from modernbert.errors import ResultError
from modernbert.inference.batching import Observer, Work, batch_tokens_for, window_for
from modernbert.inference.inputs import Watched, each_item, num_characters
from modernbert.inference.loading import (
    device_of,
    load_for_inference,
    longest_sequence,
    require_same_vocabulary,
)
from modernbert.kinds import ModelKind
from modernbert.model.choices import PrecisionChoice
from modernbert.model.encoder import Encoder
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
        name: What is computed; uses of a model with the same name may share batches.
        encode: Turns items into what is known of each, with its token ids.
        compute: Turns a batch into one result per sequence, in their order, on the CPU.
        finish: Turns what is known of items, and what was computed for each, into results.
        max_seqlen: The longest sequence that can be read, in tokens.
        size: Returns the size of an item, in characters.
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
            encoded: What `encode` returned.
            computed: What `compute` returned for each of them.
            first: The index of the first of these items, for a message.

        Raises:
            ResultError: A number is not finite.
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
    """The base of the classes that use one model: it loads the model and runs texts through it.

    Args:
        model: The model, on any device and in any precision.
        tokenizer: The tokenizer that the model was trained with.
        max_seqlen: The longest sequence, in tokens; by default what the model can read.

    Raises:
        InputError: The tokenizer has another vocabulary, or the model cannot read sequences that
            long.
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
        """Load a model and its tokenizer from a folder or from the hub.

        Args:
            folder_or_hub_id: The folder of the model or of a run, or a hub id.
            precision: The precision to compute in.
            max_seqlen: As in the constructor.

        Raises:
            ModelFolderError: There is no such model, it has another kind, or it cannot be used.
            TokenizerError: The model has no tokenizer, or it cannot be used.
            ConfigError: The device does not support the precision.
            InputError: The tokenizer has another vocabulary.
        """
        model: Any
        model, tokenizer = load_for_inference(
            cls.model_class, folder_or_hub_id, precision, cls.kinds
        )
        return cls(model, tokenizer, max_seqlen=max_seqlen)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r}, on {self.device})"

    def compile(self) -> Self:
        """Let torch's compiler fuse the layers on a GPU; see `Encoder.compile_for_inference`.

        The first batch then waits for the compiler.
        """
        model: Any = self.model
        encoder: Encoder = model if isinstance(model, Encoder) else model.encoder
        encoder.compile_for_inference()
        return self

    @property
    def device(self) -> torch.device:
        """The device that the model computes on."""
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

        At the end, a `TruncationWarning` says how many were longer than the model can read.

        Args:
            use: What to do with the items.
            items: The items, read when they are needed.
            batch_tokens: The most tokens to compute at once.
            on_progress: Called with the progress after every batch.

        Returns:
            The results in the order of the items, some at a time.

        Raises:
            InputError: An item cannot be encoded, or `batch_tokens` is below 1.
            ResultError: A result is not finite.
        """
        batch_tokens = batch_tokens_for(self.device, batch_tokens)
        work: Work[T, E, R] = Work(
            encode=use.encode,
            compute=use.compute,
            size=use.size,
            device=self.device,
            batch_tokens=batch_tokens,
            window=window_for(self.device, batch_tokens),
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
