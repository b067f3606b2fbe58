"""From the documents of units to spilled runs of token ids, on all cores."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal

import numpy as np

from modernbert.data.documents import UnitReader, WorkUnit
from modernbert.data.records import Document, RecordRules, Skipped
from modernbert.data.settings import FileSettings
from modernbert.data.spill import Spill, SpilledRun, document_keys
from modernbert.errors import InputError, RunError
from modernbert.processes import ProcessPool, num_cores

Encode = Callable[[list[str]], Sequence[Sequence[int] | np.ndarray]]

PIECE_CHARACTERS = 1 << 16
BATCH_CHARACTERS = 1 << 20
BATCH_PIECES = 1 << 12

_REPORT_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class TokenizingRules:
    """What is spilled of a unit, besides its text and the tokenizer.

    Attributes:
        files: How the bytes of files are understood.
        run_tokens: A run is stored, and not lost any more, as soon as it holds so many tokens.
    """

    text_field: str
    strict: bool
    files: FileSettings
    seed: int
    vocab_size: int
    run_tokens: int


@dataclass(frozen=True, kw_only=True)
class UnitProgress:
    """How much of a unit is done; all counts from the unit's beginning."""

    unit: int
    bytes_done: int
    documents: int
    tokens: int


ReportProgress = Callable[[UnitProgress], None]


def tokenize_unit(
    unit: WorkUnit,
    spill: Spill,
    encode: Encode,
    rules: TokenizingRules,
    report: ReportProgress,
    *,
    batch_characters: int = BATCH_CHARACTERS,
) -> None:
    """Read, tokenize and spill one unit, from its last stored run on.

    Raises:
        DocumentError: A bad record, when strict.
        InputError: `encode` gives an id outside the vocabulary.
        RunError: A file changed while it was read.
    """
    skipped = Skipped()
    record_rules = RecordRules(skipped=skipped, text_field=rules.text_field, strict=rules.strict)
    collector = _Collector(unit, spill, rules, record_rules)
    reader = UnitReader(unit, record_rules, rules.files)
    pieces = _pieces(islice(reader, collector.num_read, None))
    batches = _batches(pieces, batch_characters)
    last_report = time.monotonic()
    for batch, encoded in _encoded(batches, encode):
        for piece, token_ids in zip(batch, encoded, strict=True):
            collector.add(piece, token_ids)
        if time.monotonic() - last_report > _REPORT_SECONDS:
            last_report = time.monotonic()
            report(collector.progress(reader.bytes_done))
    collector.flush()
    _check_unchanged(unit)
    skipped.update(collector.tokenless)
    spill.finish_unit(unit.index, skipped)
    report(collector.progress(unit.num_bytes))


@dataclass(frozen=True)
class _Piece:
    """Text of a document; `document` is set for its last piece."""

    text: str
    document: Document | None


def _pieces(documents: Iterable[Document]) -> Iterator[_Piece]:
    """Cut long documents, so that no call of the tokenizer is long and all its threads work."""
    for document in documents:
        text, start = document.text, 0
        while len(text) - start > PIECE_CHARACTERS:
            stop = cut_before_space(text, start, start + PIECE_CHARACTERS)
            yield _Piece(text[start:stop], None)
            start = stop
        yield _Piece(text[start:] if start else text, document)


def cut_before_space(text: str, start: int, limit: int) -> int:
    """Return the last place up to `limit` where a word ends and a space or a line end follows.

    Without one it is `limit` itself.

    A byte-level tokenizer starts a new word there in any case, and no character composes with
    one across it, so the ids of the two pieces are those of the whole.
    """
    for place in range(limit, start, -1):
        if text[place] in " \n" and not text[place - 1].isspace():
            return place
    return limit


def _batches(pieces: Iterable[_Piece], batch_characters: int) -> Iterator[list[_Piece]]:
    batch: list[_Piece] = []
    characters = 0
    for piece in pieces:
        batch.append(piece)
        characters += len(piece.text)
        if characters >= batch_characters or len(batch) >= BATCH_PIECES:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encoded(
    batches: Iterable[list[_Piece]], encode: Encode
) -> Iterator[tuple[list[_Piece], Sequence[Sequence[int] | np.ndarray]]]:
    """Encode in one thread while this one reads the next batch and stores the one before."""
    pending: tuple[list[_Piece], Future[Sequence[Sequence[int] | np.ndarray]]] | None = None
    with ThreadPoolExecutor(max_workers=1) as thread:
        for batch in batches:
            future = thread.submit(encode, [piece.text for piece in batch])
            if pending:
                yield pending[0], pending[1].result()
            pending = batch, future
        if pending:
            yield pending[0], pending[1].result()


class _Collector:
    """Puts pieces together to documents, and documents to runs."""

    def __init__(
        self, unit: WorkUnit, spill: Spill, rules: TokenizingRules, record_rules: RecordRules
    ) -> None:
        stored = spill.runs(unit.index)
        self.num_read = stored[-1].num_read if stored else 0
        self.tokenless = Skipped()
        for run in stored:
            self.tokenless.update(run.tokenless)
        self._num_runs = len(stored)
        self._num_documents = sum(run.num_documents for run in stored)
        self._num_tokens = sum(run.num_tokens for run in stored)
        self._unit = unit.index
        self._spill = spill
        self._rules = rules
        self._strict = record_rules.strict
        self._begin_run()

    def _begin_run(self) -> None:
        self._first_number = self.num_read
        self._numbers: list[int] = []
        self._documents: list[np.ndarray] = []
        self._run_tokens = 0
        self._parts: list[np.ndarray] = []
        self._run_tokenless = Skipped()

    def add(self, piece: _Piece, token_ids: Sequence[int] | np.ndarray) -> None:
        self._parts.append(np.asarray(token_ids, dtype=np.int64))
        if piece.document is None:
            return
        parts, self._parts = self._parts, []
        document = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._add_document(piece.document, document)
        if self._run_tokens >= self._rules.run_tokens:
            self.flush()

    def _add_document(self, document: Document, token_ids: np.ndarray) -> None:
        number = self.num_read
        self.num_read += 1
        name = f"{document.source}, document {document.index + 1}"
        if len(token_ids) == 0:
            RecordRules(skipped=self._run_tokenless, strict=self._strict).skip(name, "no tokens")
            return
        lowest, highest = int(token_ids.min()), int(token_ids.max())
        if lowest < 0 or highest >= self._rules.vocab_size:
            raise InputError(
                f"{name}: token id {lowest if lowest < 0 else highest} is outside the vocabulary "
                f"of {self._rules.vocab_size}; use the tokenizer's vocab_size"
            )
        self._numbers.append(number)
        self._documents.append(self._spill.as_tokens(token_ids))
        self._run_tokens += len(token_ids)

    def flush(self) -> None:
        """Store the documents so far as a run."""
        self.tokenless.update(self._run_tokenless)
        self._num_documents += len(self._documents)
        self._num_tokens += self._run_tokens
        if self._documents:
            self._store()
        self._begin_run()

    def _store(self) -> None:
        run = SpilledRun(
            unit=self._unit,
            number=self._num_runs,
            num_documents=len(self._documents),
            num_tokens=self._run_tokens,
            num_read=self.num_read,
            tokenless=self._run_tokenless,
        )
        keys = document_keys(self._rules.seed, self._unit, self._first_number, self.num_read)
        numbers = np.array(self._numbers) - self._first_number
        self._spill.write_run(run, keys[numbers], self._documents)
        self._num_runs += 1

    def progress(self, bytes_done: int) -> UnitProgress:
        return UnitProgress(
            unit=self._unit,
            bytes_done=bytes_done,
            documents=self._num_documents + len(self._documents),
            tokens=self._num_tokens + self._run_tokens,
        )


def _check_unchanged(unit: WorkUnit) -> None:
    for part in unit.parts:
        if not part.file.is_unchanged():
            raise RunError(
                f"{part.file.path}: changed while the corpus was prepared; "
                "prepare it again into another folder"
            )


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
