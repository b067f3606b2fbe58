"""Preparing batches ahead in a background thread, and the held-out batches of an evaluation."""

import contextlib
import threading
import weakref
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Generic, Self, TypeVar

import numpy as np

from modernbert.data.collate import MaskedBatch, collate
from modernbert.data.masking import EVALUATION_RATE
from modernbert.data.mixture import Documents, Purpose, check_seed, permutation
from modernbert.data.packing import NUM_SPECIAL, Bin, PackingSettings, pack, split_documents
from modernbert.data.shards import ShardFolder
from modernbert.errors import InputError, ShardError
from modernbert.settings import PretrainingObjective

T = TypeVar("T")

_POLL_SECONDS = 0.05
_JOIN_SECONDS = 10.0


def held_out_batches(
    folder: ShardFolder,
    settings: PackingSettings,
    *,
    seed: int,
    rate: float = EVALUATION_RATE,
    max_tokens: int | None = None,
    part: int = 0,
    parts: int = 1,
    objective: PretrainingObjective = "masked",
) -> Iterator[MaskedBatch]:
    """Yield the same batches for every evaluation, one bin each, every piece of a document once.

    Args:
        folder: The held-out shards, all of whose documents are read.
        settings: How to pack them.
        seed: The seed of the sample and the masks.
        rate: The probability that a token is masked.
        max_tokens: The most tokens to evaluate on, including [CLS] and [SEP]. The pieces are drawn
            at random from all documents, because the first few of a folder could be one long book.
        part: Yield only every `parts`-th batch, from this number on. All parts have the same number
            of batches; if necessary, the last batch of a part has no targets.
        parts: The number of parts.
        objective: What is to be predicted, as in `collate`.

    Raises:
        ShardError: The folder has no documents, or its content is not what was written.
        InputError: `max_tokens` leaves no room for a single piece.
        SettingsError: The seed is not from 0 to 2^64 - 1.
    """
    check_seed(seed)
    pieces = _held_out_pieces(folder, settings, seed=seed, max_tokens=max_tokens)
    packed = pack(pieces, settings.bin_tokens, seed=seed, block=0)

    def batch(index: int) -> MaskedBatch:
        spans = packed.spans(index, folder.shards)
        each = Bin(index, spans, folder.special_token_ids)
        return collate(
            [each], vocab_size=folder.vocab_size, rate=rate, seed=seed, objective=objective
        )

    last = packed.num_bins - 1
    return (
        batch(index) if index <= last else batch(last).without_targets()
        for index in range(part, -(-packed.num_bins // parts) * parts, parts)
    )


def _held_out_pieces(
    folder: ShardFolder, settings: PackingSettings, *, seed: int, max_tokens: int | None
) -> Documents:
    if folder.num_documents == 0:
        raise ShardError(f"{folder.path}: holds no documents; prepare a corpus that has some")
    documents = Documents.concatenate(
        [
            Documents.of_shard(shard, shard_id, 0, shard.num_documents)
            for shard_id, shard in enumerate(folder.shards)
        ]
    )
    pieces = split_documents(documents, settings.max_seqlen)
    if max_tokens is None:
        return pieces
    order = permutation(len(pieces), seed=seed, purpose=Purpose.HELD_OUT)
    totals = (pieces.lengths + NUM_SPECIAL)[order].cumsum()
    kept = order[: int(np.searchsorted(totals, max_tokens, side="right"))]
    if not len(kept):
        raise InputError(f"max_tokens: got {max_tokens}, too few for one sequence of {folder.path}")
    return pieces[kept]


def prefetch(items: Iterable[T], depth: int) -> "Prefetcher[T]":
    """Run an iterable in a background thread that stays up to `depth` items ahead.

    >>> with prefetch((number**2 for number in range(4)), depth=2) as squares:
    ...     list(squares)
    [0, 1, 4, 9]

    Raises:
        InputError: A depth below 1.
    """
    return Prefetcher(items, depth)


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class _End:
    """Follows the last item."""


class Prefetcher(Iterator[T], Generic[T]):
    """An iterator whose items are prepared ahead; an exception is raised when its turn comes.

    The thread ends after the last item, at `close`, when the prefetcher is no longer referenced,
    and when the interpreter exits. If the items are a generator, it is then closed in that thread.
    """

    def __init__(self, items: Iterable[T], depth: int) -> None:
        if depth < 1:
            raise InputError(f"depth: got {depth}, expected at least 1 item ahead")
        self._queue: Queue[T | _Failure | _End] = Queue(depth)
        stopped = threading.Event()
        # The thread must not know this object, or it would never be collected.
        thread = threading.Thread(
            target=_fill, args=(items, self._queue, stopped), name="prefetch", daemon=True
        )
        self._finish = weakref.finalize(self, _stop, thread, stopped)
        thread.start()

    def __next__(self) -> T:
        item = self._get()
        if isinstance(item, _End):
            self.close()
            raise StopIteration
        if isinstance(item, _Failure):
            self.close()
            raise item.error
        return item

    def _get(self) -> "T | _Failure | _End":
        # Not one endless wait: another thread may close this one meanwhile.
        while self._finish.alive:
            with contextlib.suppress(Empty):
                return self._queue.get(timeout=_POLL_SECONDS)
        return _End()

    def close(self) -> None:
        """Stop the thread and wait for it; items that were prepared ahead are dropped."""
        self._finish()
        with contextlib.suppress(Empty):
            while True:
                self._queue.get_nowait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _fill(
    items: Iterable[T], queue: "Queue[T | _Failure | _End]", stopped: threading.Event
) -> None:
    """Put every item into the queue, then the end or the failure, unless the thread is stopped."""
    last: _Failure | _End = _End()
    try:
        iterator = iter(items)
        for item in iterator:
            if not _put(item, queue, stopped):
                break
        if isinstance(iterator, Generator):
            iterator.close()
    except BaseException as error:  # raised again where the items are used
        last = _Failure(error)
    _put(last, queue, stopped)


def _put(
    item: "T | _Failure | _End", queue: "Queue[T | _Failure | _End]", stopped: threading.Event
) -> bool:
    """Return whether the item was put into the queue before the stop."""
    while not stopped.is_set():
        with contextlib.suppress(Full):
            queue.put(item, timeout=_POLL_SECONDS)
            return True
    return False


def _stop(thread: threading.Thread, stopped: threading.Event) -> None:
    stopped.set()
    if thread is not threading.current_thread():
        thread.join(_JOIN_SECONDS)
