"""Working through units on all cores: tokenized, spilled, and told how far it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from modernbert.data.documents import WorkUnit
from modernbert.data.spill import Spill
from modernbert.data.tokenizing import (
    BATCH_CHARACTERS,
    Encode,
    ReportProgress,
    TokenizingRules,
    UnitProgress,
    tokenize_unit,
)
from modernbert.processes import ProcessPool, num_cores

# Below this, starting processes takes longer than they save.
_SMALL_BYTES = 32 << 20


@dataclass(frozen=True, kw_only=True)
class PrepareProgress:
    """How far the work is.

    Attributes:
        done: The number of files while finding them, bytes of the inputs' files while tokenizing,
            tokens while writing.
        total: As `done`; None while the files are being found.
        documents: Tokenized so far, then written so far.
        tokens: As `documents`.
    """

    stage: Literal["finding files", "tokenizing", "writing"]
    done: int
    total: int | None
    documents: int = 0
    tokens: int = 0


OnProgress = Callable[[PrepareProgress], None]


def tokenize_units(
    units: Sequence[WorkUnit],
    spill: Spill,
    rules: TokenizingRules,
    encoder_factory: Callable[[], Encode],
    workers: int | None,
    on_progress: OnProgress,
) -> None:
    """Spill the tokens of all units that are not finished.

    Args:
        units: The units to tokenize.
        spill: The folder for spilled runs.
        rules: How to tokenize.
        encoder_factory: Makes the function that encodes texts, once in each process.
        workers: Processes; None chooses as many as the cores and the files make useful. One works
            in the calling process.
        on_progress: Called with the progress after every batch.

    Raises:
        ModernBertError: See `tokenize_unit` and `ProcessPool.run`.
    """
    spill.folder.mkdir(exist_ok=True)
    tally = _Tally(units, spill, on_progress)
    unfinished = [unit for unit in units if spill.finished(unit.index) is None]
    if not unfinished:
        return
    cores = num_cores()
    num_workers = min(workers or _useful_workers(unfinished, cores), len(unfinished))
    threads = max(1, cores // num_workers)
    make_worker = partial(_make_worker, spill, rules, encoder_factory, threads)
    # The largest first, so that none is left over when the other workers are done.
    unfinished.sort(key=lambda unit: unit.expected_text_bytes, reverse=True)
    if num_workers == 1:
        work = make_worker()
        for unit in unfinished:
            work(unit, tally.update)
        return
    pool = ProcessPool[WorkUnit, UnitProgress](num_workers, make_worker, threads=threads)
    for message in pool.run(unfinished):
        tally.update(message)


def _useful_workers(units: Sequence[WorkUnit], cores: int) -> int:
    """As many processes as the largest unit lets work to the end, the rest of the cores as threads.

    Processes are better than threads, since reading and unpacking then run in parallel too.
    """
    expected = [unit.expected_text_bytes for unit in units]
    if sum(expected) < _SMALL_BYTES:
        return 1
    return max(1, min(cores, sum(expected) // max(expected)))


def _make_worker(
    spill: Spill, rules: TokenizingRules, encoder_factory: Callable[[], Encode], threads: int
) -> Callable[[WorkUnit, ReportProgress], None]:
    encode = encoder_factory()

    def work(unit: WorkUnit, report: ReportProgress) -> None:
        batch_characters = BATCH_CHARACTERS * threads
        tokenize_unit(unit, spill, encode, rules, report, batch_characters=batch_characters)

    return work


class _Tally:
    """The progress of all units together, kept as sums: there may be very many units."""

    def __init__(self, units: Sequence[WorkUnit], spill: Spill, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._total_bytes = sum(unit.num_bytes for unit in units)
        self._units: dict[int, UnitProgress] = {}
        self._bytes_done = self._documents = self._tokens = 0
        for unit in units:
            runs = spill.runs(unit.index)
            finished = spill.finished(unit.index) is not None
            progress = UnitProgress(
                unit=unit.index,
                bytes_done=unit.num_bytes if finished else 0,
                documents=sum(run.num_documents for run in runs),
                tokens=sum(run.num_tokens for run in runs),
            )
            self._count(progress, 1)
            self._units[unit.index] = progress
        self._tell()

    def update(self, progress: UnitProgress) -> None:
        self._count(self._units[progress.unit], -1)
        self._count(progress, 1)
        self._units[progress.unit] = progress
        self._tell()

    def _count(self, progress: UnitProgress, sign: int) -> None:
        self._bytes_done += sign * progress.bytes_done
        self._documents += sign * progress.documents
        self._tokens += sign * progress.tokens

    def _tell(self) -> None:
        self._on_progress(
            PrepareProgress(
                stage="tokenizing",
                done=self._bytes_done,
                total=self._total_bytes,
                documents=self._documents,
                tokens=self._tokens,
            )
        )
