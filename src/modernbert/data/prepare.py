"""From a corpus to token shards: documents tokenized on all cores and shuffled in bounded memory.

Two passes. The first tokenizes the corpus, work unit by work unit, and spills the documents to
the disk, each with a random key; the second writes them into shards in the order of their keys.
The result depends on the inputs, the settings and the tokenizer alone: not on the number of
processes, and not on how often the work was stopped and taken up again.

The first pass can be done in shares by independent tasks, on one machine or many: `prepare_share`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from modernbert.data.corpus_files import CorpusFile, find_files
from modernbert.data.datatrove_files import Reencode, TokenFileImporter, find_token_files
from modernbert.data.documents import FilePart, WorkUnit, even_unit_bytes, plan_units, share_of
from modernbert.data.prepare_folder import PrepareFolder, claim_folder, share_folder
from modernbert.data.records import RecordRules, Skipped
from modernbert.data.settings import FileSettings, PrepareSettings
from modernbert.data.shard_files import check_special_tokens, token_dtype
from modernbert.data.shards import ShardFolder, ShardWriter, Source, SpecialTokens
from modernbert.data.spill import RUN_TOKENS, Spill, SpilledRun, shuffled
from modernbert.data.tokenizing import (
    Encode,
    OnProgress,
    PrepareProgress,
    TokenizingRules,
    tokenize_units,
)
from modernbert.display import Shown, Table
from modernbert.errors import DocumentError, InputError
from modernbert.settings import to_mapping

_WRITING_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class CorpusTokenizer:
    """What is known here of a tokenizer.

    Attributes:
        encoder_factory: Makes the function from texts to their token ids, without special tokens;
            called once in each worker process, so it must be picklable.
        vocab_size: The number of tokens in the vocabulary.
        special_token_ids: The ids of its special tokens.
        fingerprint: Its fingerprint, by which shards are told apart from those of others.

    Raises:
        InputError: The vocabulary lacks a special token.
    """

    encoder_factory: Callable[[], Encode]
    vocab_size: int
    special_token_ids: SpecialTokens
    fingerprint: str

    def __post_init__(self) -> None:
        check_special_tokens(self.special_token_ids, self.vocab_size)


@dataclass(frozen=True, kw_only=True, repr=False)
class PrepareResult(Shown):
    """The shards that were prepared.

    Attributes:
        train: The shards in the output folder itself.
        held_out: The shards of the held-out documents, in its folder `held-out`, if there are any.
        skipped: What could not be read.
        already_finished: Whether an earlier call had done all the work.
    """

    train: ShardFolder
    held_out: ShardFolder | None
    skipped: Skipped
    already_finished: bool

    def table(self) -> Table:
        """Return a row for each folder of shards."""
        folders = [each for each in (self.train, self.held_out) if each is not None]
        rows = [[str(each.path), each.num_documents, each.num_tokens] for each in folders]
        return Table(("folder", "documents", "tokens"), rows)


@dataclass(frozen=True, kw_only=True)
class ShareResult:
    """The work of one task of several.

    Attributes:
        num_units: The work units of its share of the corpus.
        num_documents: The documents of its share.
        num_tokens: The tokens of its share.
        already_finished: Whether the shards had been made before.
    """

    num_units: int
    num_documents: int
    num_tokens: int
    already_finished: bool


def prepare(
    inputs: Sequence[Path | str],
    output: Path | str,
    tokenizer: CorpusTokenizer,
    *,
    settings: PrepareSettings | None = None,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> PrepareResult:
    """Make token shards of files and folders.

    You can stop it at any moment: the same call continues where it stopped, and does nothing once
    everything is finished. The held-out documents are a random choice of whole documents.
    While it runs, it needs about twice the disk space of the shards.

    Args:
        inputs: The files and folders of the corpus.
        output: The folder to write to.
        tokenizer: What makes token ids of texts.
        settings: How the corpus is read, split and shuffled; the defaults when None.
        workers: Processes; None chooses as many as the cores and the files make useful. One works
            in the calling process.
        on_progress: Called with the progress after every batch.

    Raises:
        DocumentError: An input is missing or there is no document; when strict, any bad record.
        InputError: A token id outside the vocabulary.
        RunError: The output folder belongs to other inputs, settings or another tokenizer, an
            input has changed, the disk is full, or a worker process died.
    """
    progress = on_progress or _ignore
    call = _TextCall.of(inputs, tokenizer, settings, progress)
    return _prepare(call, output, workers, progress)


def import_datatrove(
    inputs: Sequence[Path | str],
    output: Path | str,
    tokenizer: CorpusTokenizer,
    *,
    reencode: Reencode,
    end_token_id: int | None,
    settings: PrepareSettings | None = None,
    on_progress: OnProgress | None = None,
) -> PrepareResult:
    """Make token shards of datatrove's token files, shuffled over all files.

    Args:
        inputs: Folders of `.ds` files with their `.index`, or such files.
        output: The folder to write to.
        tokenizer: The tokenizer that made the files, whose encoder is not used.
        reencode: From a document's ids to text and back, to find out whether these are the ids of
            the tokenizer that is given.
        end_token_id: The token that datatrove put after each document, besides [SEP]; None for
            none.
        settings: How the corpus is read, split and shuffled; the defaults when None.
        on_progress: Called with the progress after every batch.

    Raises:
        ModernBertError: As `prepare`; and for files that cannot be used.
    """
    call = _TokenFileCall(
        inputs=tuple(str(given) for given in inputs),
        files=tuple(find_token_files(inputs)),
        settings=settings or PrepareSettings(),
        tokenizer=tokenizer,
        reencode=reencode,
        end_token_id=end_token_id,
    )
    return _prepare(call, output, None, on_progress or _ignore)


def _ignore(_progress: PrepareProgress) -> None:
    pass


def _prepare(
    call: "_Call", output: Path | str, workers: int | None, progress: OnProgress
) -> PrepareResult:
    with claim_folder(Path(output), call.identity) as folder:
        already_finished = folder.is_finished
        if not already_finished:
            call.tokenize(folder, call.units, workers, progress)
            _write(folder, call, progress)
        folder.remove_unfinished()
        return PrepareResult(
            train=ShardFolder.open(folder.path),
            held_out=ShardFolder.open(folder.held_out) if call.settings.held_out else None,
            skipped=folder.read_skipped(),
            already_finished=already_finished,
        )


def prepare_share(
    inputs: Sequence[Path | str],
    output: Path | str,
    tokenizer: CorpusTokenizer,
    *,
    task: int,
    num_tasks: int,
    settings: PrepareSettings | None = None,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> ShareResult:
    """Tokenize one share of the corpus, for `prepare` to make shards of when all are there.

    The tasks may run at any time and in any order, together or not, on any machines that see the
    inputs under the same paths and the output. One that was killed is called again and goes on
    where it was. `prepare` with the same arguments then makes the shards, byte for byte those that
    it makes alone; whatever share is missing it tokenizes itself.

    Args:
        inputs: The files and folders of the corpus.
        output: The folder to write to.
        tokenizer: As in `prepare`.
        task: The number of the share, from 0 to below `num_tasks`.
        num_tasks: The number of shares.
        settings: How the corpus is read, split and shuffled; the defaults when None.
        workers: The number of processes.
        on_progress: Called with the progress after every batch.

    Raises:
        InputError: There is no such task.
        ModernBertError: As `prepare`.
    """
    if not 0 <= task < num_tasks:
        raise InputError(f"task: got {task} of {num_tasks}, expected 0 to {num_tasks - 1}")
    progress = on_progress or _ignore
    call = _TextCall.of(inputs, tokenizer, settings, progress)
    units = share_of(call.units, task, num_tasks)
    with share_folder(Path(output), call.identity, task=task, num_tasks=num_tasks) as folder:
        already_finished = folder.is_finished
        spill = call.spill(folder)
        if not already_finished:
            call.tokenize(folder, units, workers, progress)
        runs = [run for unit in units for run in spill.runs(unit.index)]
        return ShareResult(
            num_units=len(units),
            num_documents=sum(run.num_documents for run in runs),
            num_tokens=sum(run.num_tokens for run in runs),
            already_finished=already_finished,
        )


@dataclass(frozen=True, kw_only=True)
class _Call(ABC):
    """The checked arguments of a call, and what follows from them."""

    inputs: tuple[str, ...]
    files: tuple[CorpusFile, ...]
    passed_over: Skipped = field(default_factory=Skipped)
    settings: PrepareSettings
    tokenizer: CorpusTokenizer

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the shards depend on, as JSON values."""
        return {
            "inputs": list(self.inputs),
            "settings": _without_defaults(to_mapping(self.settings)),
            "tokenizer": self.tokenizer.fingerprint,
            "vocab_size": self.tokenizer.vocab_size,
            "special_token_ids": to_mapping(self.tokenizer.special_token_ids),
            "files": [[file.path, file.num_bytes, file.mtime_ns] for file in self.files],
        }

    @property
    @abstractmethod
    def units(self) -> list[WorkUnit]:
        """The work units of the corpus, always the same."""

    @abstractmethod
    def tokenize(
        self,
        folder: PrepareFolder,
        units: Sequence[WorkUnit],
        workers: int | None,
        on_progress: OnProgress,
    ) -> None:
        """Spill the tokens of unfinished units."""

    def spill(self, folder: PrepareFolder) -> Spill:
        """Return the folder of the runs of all units."""
        return Spill(folder.unfinished, token_dtype(self.tokenizer.vocab_size))

    def open_writer(self, path: Path) -> ShardWriter:
        """Return the writer of a new shard folder."""
        return ShardWriter(
            path,
            vocab_size=self.tokenizer.vocab_size,
            special_token_ids=self.tokenizer.special_token_ids,
            tokenizer_fingerprint=self.tokenizer.fingerprint,
            shard_tokens=self.settings.shard_tokens,
        )


@dataclass(frozen=True, kw_only=True)
class _TextCall(_Call):
    """A call whose inputs are texts to tokenize."""

    @classmethod
    def of(
        cls,
        inputs: Sequence[Path | str],
        tokenizer: CorpusTokenizer,
        settings: PrepareSettings | None,
        on_progress: OnProgress,
    ) -> Self:
        settings = settings or PrepareSettings()
        rules = RecordRules(skipped=Skipped(), strict=settings.strict)
        files = find_files(
            inputs,
            follow_links=settings.follow_links,
            pass_over=rules.skip,
            on_found=lambda count: on_progress(
                PrepareProgress(stage="finding files", done=count, total=None)
            ),
        )
        return cls(
            inputs=tuple(str(given) for given in inputs),
            files=tuple(files),
            passed_over=rules.skipped,
            settings=settings,
            tokenizer=tokenizer,
        )

    @cached_property
    def units(self) -> list[WorkUnit]:
        unit_bytes = even_unit_bytes(self.files)
        return plan_units(self.files, unit_bytes=unit_bytes, encoding=self.settings.encoding)

    def tokenize(
        self,
        folder: PrepareFolder,
        units: Sequence[WorkUnit],
        workers: int | None,
        on_progress: OnProgress,
    ) -> None:
        rules = TokenizingRules(
            text_field=self.settings.text_field,
            strict=self.settings.strict,
            files=FileSettings(encoding=self.settings.encoding, header=self.settings.header),
            seed=self.settings.seed,
            vocab_size=self.tokenizer.vocab_size,
            run_tokens=RUN_TOKENS,
        )
        spill = self.spill(folder)
        tokenize_units(units, spill, rules, self.tokenizer.encoder_factory, workers, on_progress)


@dataclass(frozen=True, kw_only=True)
class _TokenFileCall(_Call):
    """A call whose inputs are files of tokens; each file is a unit."""

    reencode: Reencode
    end_token_id: int | None

    @property
    def identity(self) -> dict[str, Any]:
        return {**super().identity, "end_token_id": self.end_token_id}

    @cached_property
    def units(self) -> list[WorkUnit]:
        return [
            WorkUnit(index=i, parts=(FilePart(file=file),)) for i, file in enumerate(self.files)
        ]

    def tokenize(
        self,
        folder: PrepareFolder,
        units: Sequence[WorkUnit],
        workers: int | None,  # noqa: ARG002 - it is only copying
        on_progress: OnProgress,
    ) -> None:
        importer = TokenFileImporter(
            spill=self.spill(folder),
            seed=self.settings.seed,
            strict=self.settings.strict,
            run_tokens=RUN_TOKENS,
            vocab_size=self.tokenizer.vocab_size,
            special_token_ids=self.tokenizer.special_token_ids,
            end_token_id=self.end_token_id,
            reencode=self.reencode,
        )
        importer.run(units, on_progress)


def _without_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out file settings with default values, which folders of earlier versions lack."""
    defaults = {**to_mapping(FileSettings()), "follow_links": False}
    return {k: v for k, v in settings.items() if k not in defaults or v != defaults[k]}


def _write(folder: PrepareFolder, call: _Call, on_progress: OnProgress) -> None:
    """Write the spilled documents into shards, in the order of their keys."""
    spill, held_out = call.spill(folder), call.settings.held_out
    skipped = Skipped()
    skipped.update(call.passed_over)
    for unit in call.units:
        skipped.update(spill.finished(unit.index) or Skipped())
    runs = [run for unit in call.units for run in spill.runs(unit.index)]
    num_documents = sum(run.num_documents for run in runs)
    if num_documents <= bool(held_out):
        folder.forget()
        needed = "two documents, one to hold out" if held_out else "a document"
        found = "1 document" if num_documents == 1 else f"{num_documents} documents"
        passed_over = f"; {skipped}" if str(skipped) else ""
        remedy = "pass --held-out 0 or give more" if num_documents else "give files with texts"
        raise DocumentError(f"the inputs have {found}, expected {needed}; {remedy}{passed_over}")
    folder.remove_held_out()
    folder.write_skipped(skipped)
    inputs = {unit.index: unit.input for unit in call.units}
    tell = _written(runs, on_progress)
    documents = ((inputs[run.unit], tokens) for run, tokens in shuffled(spill, runs))
    if held_out:
        # The order is random, so the first documents of it are a random choice.
        count = min(max(1, round(held_out * num_documents)), num_documents - 1)
        _write_folder(call.open_writer(folder.held_out), islice(documents, count), tell)
    _write_folder(call.open_writer(folder.path), documents, tell)


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


def _written(runs: Sequence[SpilledRun], on_progress: OnProgress) -> Callable[[int], None]:
    """Return a function to call with each document's number of tokens, which reports progress."""
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
