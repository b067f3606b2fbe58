"""Texts of any lengths to results in their order: read in windows, sorted, packed, computed.

    items -> window -> token ids -> sorted by length -> packs of tokens -> results in input order

Only one window of items is held at a time, so that an endless generator can be streamed.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, Protocol, TypedDict, TypeVar

import torch

from modernbert.batch import PackedBatch
from modernbert.devices import Underway, underway
from modernbert.errors import InputError

R = TypeVar("R")


def launch(
    compute: Callable[[PackedBatch], Sequence[R]],
    sequences: Iterable[Sequence[int]],
    device: torch.device,
) -> Underway[Sequence[R]]:
    """Pack sequences, copy them to a device and begin to compute.

    Args:
        compute: A batch to one result a sequence; brings them to the CPU by `to_host`.
        sequences: Token ids, with their special tokens.
        device: Where the model is.

    Raises:
        InputError: No sequence, or an empty one.
    """
    batch = PackedBatch.from_sequences(sequences)
    on_gpu = device.type == "cuda"
    if on_gpu:  # from other memory a copy would wait for all that was launched before
        batch = batch.pin_memory()
    with torch.inference_mode():
        results = compute(batch.to(device, non_blocking=on_gpu))
    return underway(results, device)


DEFAULT_BATCH_TOKENS = 8192
"""For a CPU. Base size in bfloat16, ragged texts, two cores: 1,024, 2,048 and 4,096 tokens gave
51%, 89% and 97% of the speed that this gives. A GPU wants more (see `batch_tokens_for`)."""

_CUDA_BATCH_TOKENS = 32_768
_CHARACTERS_PER_BATCH_TOKEN = 16  # four batches or so, as a token has about four characters


class Encoded(Protocol):
    """What a text has become: its token ids, and whether it was longer than the model reads."""

    @property
    def token_ids(self) -> list[int]: ...

    @property
    def is_truncated(self) -> bool: ...


T = TypeVar("T")
E = TypeVar("E")


@dataclass(frozen=True)
class InWindows:
    """An item that is read in several sequences; what is computed of it is a list."""

    windows: Sequence[Encoded]


def sequences_of(encoded: Sequence[Any]) -> list[Encoded]:
    """Return the sequences of some items, in their order."""
    return [
        each
        for item in encoded
        for each in (item.windows if isinstance(item, InWindows) else (item,))
    ]


def by_item(encoded: Sequence[Any], results: Iterable[Any]) -> list[Any]:
    """Return the results of `sequences_of` some items, for each item its own."""
    left = iter(results)
    return [
        list(islice(left, len(item.windows))) if isinstance(item, InWindows) else next(left)
        for item in encoded
    ]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the work is.

    Attributes:
        texts: Computed so far.
        tokens: As `texts`.
        truncated: How many of the texts were longer than the model reads.
    """

    texts: int = 0
    tokens: int = 0
    truncated: int = 0


Observer = Callable[[Progress], None]


class RunOptions(TypedDict, total=False):
    """How many texts are run through a model.

    Attributes:
        batch_tokens: The most tokens to compute at once; by default as many as suit the device.
        on_progress: Called with the progress after every batch.
    """

    batch_tokens: int | None
    on_progress: Observer | None


def require_known(options: Mapping[str, Any], known: type) -> None:
    """Refuse options that a dictionary of options does not have.

    Raises:
        InputError: The first of them, and those that there are.
    """
    names = known.__annotations__
    if unknown := [name for name in options if name not in names]:
        raise InputError(f"{unknown[0]}: no such option; expected one of {', '.join(names)}")


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """How much is read before anything of it is computed.

    Attributes:
        max_items: The most items.
        max_size: The most of what `size` counts, but one item in any case.
    """

    max_items: int = 2048
    max_size: int = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Work(Generic[T, E, R]):
    """What happens to items on their way to results.

    Attributes:
        encode: A list of items to what is known of each, with its token ids.
        compute: A batch to one result a sequence, in the order of the sequences.
        size: Of an item, in characters; it bounds what a window holds.
        device: Where the batches are to be.
        batch_tokens: The most tokens of a batch, but one sequence in any case.
        in_flight: How many batches are launched before the results of an earlier one are read, so
            that a GPU computes while the next texts are encoded and packed; None for one on a GPU,
            and none on a CPU, which computes a batch while it is launched.
    """

    encode: Callable[[list[T]], list[E]]
    compute: Callable[[PackedBatch], Sequence[R]]
    size: Callable[[T], int]
    device: torch.device
    batch_tokens: int = DEFAULT_BATCH_TOKENS
    window: WindowSettings = field(default_factory=WindowSettings)
    in_flight: int | None = None

    def __post_init__(self) -> None:
        if self.batch_tokens < 1:
            raise InputError(f"batch_tokens: got {self.batch_tokens}, expected 1 or more")

    def run(
        self, items: Iterable[T], on_progress: Observer | None = None
    ) -> Iterator[list[tuple[E, R]]]:
        """Yield, for each window, what its items were encoded to and their results, in order.

        Args:
            items: The inputs, of which only a window is held at a time.
            on_progress: Is told after every batch.
        """
        done = Progress()
        in_flight = self.in_flight
        if in_flight is None:
            in_flight = int(self.device.type == "cuda")
        for pack in _delayed(self._launched(items), in_flight):
            window = pack.window
            window.results.update(zip(pack.places, pack.launched.wait(), strict=True))
            done = _advanced(done, [window.sequences[place] for place in pack.places])
            if on_progress is not None:
                on_progress(done)
            if len(window.results) == len(window.sequences):
                yield window.in_order()

    def _launched(self, items: Iterable[T]) -> "Iterator[_Pack[E, R]]":
        for texts in windows(items, self.size, self.window):
            window: _Window[E, R] = _Window(self.encode(texts))
            lengths = [len(each.token_ids) for each in window.sequences]
            for places in packs(lengths, self.batch_tokens):
                sequences = (window.sequences[place].token_ids for place in places)
                yield _Pack(window, places, launch(self.compute, sequences, self.device))


class _Window(Generic[E, R]):
    """What has been read at a time, and the results that are there by now."""

    def __init__(self, encoded: list[E]) -> None:
        self.encoded, self.sequences = encoded, sequences_of(encoded)
        self.results: dict[int, R] = {}

    def in_order(self) -> list[tuple[E, R]]:
        results = (self.results[place] for place in range(len(self.sequences)))
        return list(zip(self.encoded, by_item(self.encoded, results), strict=True))


@dataclass(frozen=True)
class _Pack(Generic[E, R]):
    """Places of a window that are computed together."""

    window: _Window[E, R]
    places: list[int]
    launched: Underway[Sequence[R]]


def _delayed(items: Iterable[T], number: int) -> Iterator[T]:
    """Each item when so many more have been taken."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > number:
            yield waiting.popleft()
    yield from waiting


def batch_tokens_for(device: torch.device, asked: int | None = None) -> int:
    """Return how many tokens to compute at once: what is asked for, or what fills such a device."""
    if asked is not None:
        return asked
    return _CUDA_BATCH_TOKENS if device.type == "cuda" else DEFAULT_BATCH_TOKENS


def window_for(device: torch.device, batch_tokens: int) -> WindowSettings:
    """Choose how much is read at a time: on a CPU what is computed in seconds, not in minutes.

    Results come window by window, so this is what a stop can lose.
    """
    if device.type == "cuda":
        return WindowSettings()
    return WindowSettings(max_size=_CHARACTERS_PER_BATCH_TOKEN * batch_tokens)


def windows(
    items: Iterable[T], size: Callable[[T], int], settings: WindowSettings
) -> Iterator[list[T]]:
    """Cut items into lists, none of them empty; an item is taken only when its window is due."""
    window: list[T] = []
    total = 0
    for item in items:
        window.append(item)
        total += size(item)
        if len(window) >= settings.max_items or total >= settings.max_size:
            yield window
            window, total = [], 0
    if window:
        yield window


def packs(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield the places of texts of like lengths, the longest first, up to `batch_tokens` a pack.

    >>> list(packs([2, 9, 4, 3], 8))
    [[1], [2, 3], [0]]
    """
    pack: list[int] = []
    total = 0
    # The longest first: a batch that does not fit the memory fails at once, and not at the end.
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if pack and total + lengths[place] > batch_tokens:
            yield pack
            pack, total = [], 0
        pack.append(place)
        total += lengths[place]
    if pack:
        yield pack


def _advanced(done: Progress, encoded: Sequence[Encoded]) -> Progress:
    return Progress(
        texts=done.texts + len(encoded),
        tokens=done.tokens + sum(len(each.token_ids) for each in encoded),
        truncated=done.truncated + sum(each.is_truncated for each in encoded),
    )
