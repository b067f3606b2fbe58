"""From a corpus to token shards: documents tokenized on all cores and shuffled in bounded memory.

Two passes. The first tokenizes the corpus, work unit by work unit, and spills the documents to
the disk, each with a random key; the second writes them into shards in the order of their keys.
The result depends on the inputs, the settings and the tokenizer alone: not on the number of
processes, and not on how often the work was stopped and taken up again.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from modernbert.data.corpus_files import find_files
from modernbert.data.prepare_folder import PrepareFolder, claim_folder
from modernbert.data.records import Skipped
from modernbert.data.shard_manifest import check_special_tokens, token_dtype
from modernbert.data.shard_writer import DEFAULT_SHARD_TOKENS
from modernbert.data.shards import ShardFolder, ShardWriter, Source, SpecialTokens
from modernbert.data.spill import RUN_TOKENS, Run, Spill, shuffled
from modernbert.data.tokenizing import (
    BATCH_CHARACTERS,
    Encode,
    Report,
    TokenizingRules,
    UnitProgress,
    tokenize_unit,
)
from modernbert.data.work_pool import WorkPool
from modernbert.data.work_units import UNIT_BYTES, WorkUnit, plan_units
from modernbert.errors import DocumentError, SettingsError
from modernbert.settings import to_mapping

# Below this, starting processes takes longer than they save.
_SMALL_BYTES = 32 << 20
_WRITING_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """What the shards of a corpus depend on, besides its documents and the tokenizer.

    text_field: the name of the text in JSON records and in columns.
    strict: stop at the first file or record that cannot be read, instead of skipping it.
    seed: of the shuffle.
    held_out: the fraction of the documents that is kept apart for evaluation.
    shard_tokens: how many tokens a shard holds at most, unless it is a single document.
    """

    text_field: str = "text"
    strict: bool = False
    seed: int = 0
    held_out: float = 0.0
    shard_tokens: int = DEFAULT_SHARD_TOKENS

    def __post_init__(self) -> None:
        if not self.text_field:
            raise SettingsError("text_field: got an empty name, expected one such as 'text'")
        if self.seed < 0:
            raise SettingsError(f"seed: got {self.seed}, expected 0 or more")
        if not 0 <= self.held_out < 1:
            raise SettingsError(f"held_out: got {self.held_out}, expected from 0 to below 1")
        if self.shard_tokens < 1:
            raise SettingsError(f"shard_tokens: got {self.shard_tokens}, expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class PrepareProgress:
    """How far the work is.

    done, total: bytes of the inputs' files while tokenizing, tokens while writing.
    documents, tokens: tokenized so far, then written so far.
    """

    stage: Literal["tokenizing", "writing"]
    done: int
    total: int
    documents: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class PrepareResult:
    """What was prepared.

    train: the shards in the output folder itself.
    held_out: those of the held-out documents, in its folder `held-out`; None when none are.
    skipped: what could not be read.
    already_finished: an earlier call had done all the work.
    """

    train: ShardFolder
    held_out: ShardFolder | None
    skipped: Skipped
    already_finished: bool


OnProgress = Callable[[PrepareProgress], None]


def prepare(
    inputs: Sequence[Path | str],
    output: Path | str,
    *,
    encoder_factory: Callable[[], Encode],
    vocab_size: int,
    special_token_ids: SpecialTokens,
    tokenizer_fingerprint: str,
    settings: PrepareSettings | None = None,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> PrepareResult:
    """Make token shards of files and folders.

    Stopped at any moment and called again with the same arguments, it goes on where it was; once
    finished, it does nothing more. The held-out documents are a random choice of whole documents.
    While it works it needs about twice the room of the shards on the disk.

    encoder_factory: makes the function from texts to their token ids, without special tokens;
        called once in each worker process, so it must be picklable.
    workers: processes; None chooses as many as the cores and the files make useful. One works in
        the calling process.

    Raises:
        DocumentError: an input is missing or there is no document; when strict, any bad record.
        InputError: a token id outside the vocabulary.
        RunError: the output folder belongs to other inputs, settings or another tokenizer, an
            input has changed, the disk is full, or a worker process died.
    """
    settings = settings or PrepareSettings()
    check_special_tokens(special_token_ids, vocab_size)
    files = find_files(inputs)
    identity = {
        "inputs": [str(given) for given in inputs],
        "settings": to_mapping(settings),
        "tokenizer": tokenizer_fingerprint,
        "vocab_size": vocab_size,
        "special_token_ids": to_mapping(special_token_ids),
        "files": [[file.path, file.num_bytes, file.mtime_ns] for file in files],
    }
    with claim_folder(Path(output), identity) as folder:
        already_finished = folder.is_finished
        if not already_finished:
            progress = on_progress or (lambda _: None)
            units = plan_units(files, unit_bytes=UNIT_BYTES)
            spill = Spill(folder.unfinished, token_dtype(vocab_size))
            rules = TokenizingRules(
                text_field=settings.text_field,
                strict=settings.strict,
                seed=settings.seed,
                vocab_size=vocab_size,
                run_tokens=RUN_TOKENS,
            )
            _tokenize(units, spill, rules, encoder_factory, workers, progress)
            open_writer = partial(
                ShardWriter,
                vocab_size=vocab_size,
                special_token_ids=special_token_ids,
                tokenizer_fingerprint=tokenizer_fingerprint,
                shard_tokens=settings.shard_tokens,
            )
            _write(folder, units, spill, settings.held_out, open_writer, progress)
        folder.remove_unfinished()
        return PrepareResult(
            train=ShardFolder.open(folder.path),
            held_out=ShardFolder.open(folder.held_out) if settings.held_out else None,
            skipped=folder.read_skipped(),
            already_finished=already_finished,
        )


def _tokenize(
    units: Sequence[WorkUnit],
    spill: Spill,
    rules: TokenizingRules,
    encoder_factory: Callable[[], Encode],
    workers: int | None,
    on_progress: OnProgress,
) -> None:
    """Spill the tokens of all units that are not finished."""
    spill.folder.mkdir(exist_ok=True)
    tally = _Tally(units, spill, on_progress)
    unfinished = [unit for unit in units if spill.finished(unit.index) is None]
    if not unfinished:
        return
    num_cores = _num_cores()
    num_workers = min(workers or _useful_workers(unfinished, num_cores), len(unfinished))
    threads = max(1, num_cores // num_workers)
    make_worker = partial(_make_worker, spill, rules, encoder_factory, threads)
    # The largest first, so that none is left over when the other workers are done.
    unfinished.sort(key=lambda unit: unit.expected_text_bytes, reverse=True)
    if num_workers == 1:
        work = make_worker()
        for unit in unfinished:
            work(unit, tally.update)
        return
    pool = WorkPool[WorkUnit, UnitProgress](num_workers, make_worker, threads=threads)
    for message in pool.run(unfinished):
        tally.update(message)


def _num_cores() -> int:
    """The cores that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _useful_workers(units: Sequence[WorkUnit], num_cores: int) -> int:
    """As many processes as the largest unit lets work to the end, the rest of the cores as threads.

    Processes are better than threads, since reading and unpacking then run in parallel too.
    """
    expected = [unit.expected_text_bytes for unit in units]
    if sum(expected) < _SMALL_BYTES:
        return 1
    return max(1, min(num_cores, sum(expected) // max(expected)))


def _make_worker(
    spill: Spill, rules: TokenizingRules, encoder_factory: Callable[[], Encode], threads: int
) -> Callable[[WorkUnit, Report], None]:
    encode = encoder_factory()

    def work(unit: WorkUnit, report: Report) -> None:
        batch_characters = BATCH_CHARACTERS * threads
        tokenize_unit(unit, spill, encode, rules, report, batch_characters=batch_characters)

    return work


class _Tally:
    """The progress of all units together."""

    def __init__(self, units: Sequence[WorkUnit], spill: Spill, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._total_bytes = sum(unit.num_bytes for unit in units)
        self._units: dict[int, UnitProgress] = {}
        for unit in units:
            runs = spill.runs(unit.index)
            finished = spill.finished(unit.index) is not None
            self._units[unit.index] = UnitProgress(
                unit=unit.index,
                bytes_done=unit.num_bytes if finished else 0,
                documents=sum(run.num_documents for run in runs),
                tokens=sum(run.num_tokens for run in runs),
            )
        self._tell()

    def update(self, progress: UnitProgress) -> None:
        self._units[progress.unit] = progress
        self._tell()

    def _tell(self) -> None:
        units = self._units.values()
        self._on_progress(
            PrepareProgress(
                stage="tokenizing",
                done=sum(unit.bytes_done for unit in units),
                total=self._total_bytes,
                documents=sum(unit.documents for unit in units),
                tokens=sum(unit.tokens for unit in units),
            )
        )


def _write(
    folder: PrepareFolder,
    units: Sequence[WorkUnit],
    spill: Spill,
    held_out: float,
    open_writer: Callable[[Path], ShardWriter],
    on_progress: OnProgress,
) -> None:
    """Write the spilled documents into shards, in the order of their keys."""
    skipped = Skipped()
    for unit in units:
        skipped.update(spill.finished(unit.index) or Skipped())
    runs = [run for unit in units for run in spill.runs(unit.index)]
    num_documents = sum(run.num_documents for run in runs)
    if num_documents <= bool(held_out):
        folder.forget()
        needed = "two documents, one to hold out" if held_out else "a document"
        raise DocumentError(
            f"the inputs hold {num_documents} documents, expected {needed}; {skipped}"
        )
    folder.remove_held_out()
    folder.write_skipped(skipped)
    inputs = {unit.index: unit.input for unit in units}
    tell = _written(runs, on_progress)
    documents = ((inputs[run.unit], tokens) for run, tokens in shuffled(spill, runs))
    if held_out:
        # The order is random, so the first documents of it are a random choice.
        count = min(max(1, round(held_out * num_documents)), num_documents - 1)
        _write_folder(open_writer(folder.held_out), islice(documents, count), tell)
    _write_folder(open_writer(folder.path), documents, tell)


def _write_folder(
    writer: ShardWriter, documents: Iterable[tuple[str, np.ndarray]], tell: Callable[[int], None]
) -> None:
    """Write documents, each with the input that it is from, and finish the folder."""
    counts: dict[str, tuple[int, int]] = {}
    with writer:
        for name, tokens in documents:
            writer.add(tokens)
            num_documents, num_tokens = counts.get(name, (0, 0))
            counts[name] = num_documents + 1, num_tokens + len(tokens)
            tell(len(tokens))
        writer.finish(
            Source(name=name, num_documents=num_documents, num_tokens=num_tokens)
            for name, (num_documents, num_tokens) in sorted(counts.items())
        )


def _written(runs: Sequence[Run], on_progress: OnProgress) -> Callable[[int], None]:
    """A function to call with each document's number of tokens; it tells of the progress."""
    total = sum(run.num_tokens for run in runs)
    step = max(1, total // _WRITING_STEPS)
    documents = tokens = 0

    def tell(num_tokens: int) -> None:
        nonlocal documents, tokens
        documents += 1
        tokens += num_tokens
        if tokens // step > (tokens - num_tokens) // step or tokens == total:
            on_progress(
                PrepareProgress(
                    stage="writing",
                    done=tokens,
                    total=total,
                    documents=documents,
                    tokens=tokens,
                )
            )

    return tell
