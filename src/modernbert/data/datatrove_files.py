"""Token files of datatrove, whose documents are taken over as ids.

`NAME.ds` holds the ids of all documents as little-endian uint16 or uint32, and `NAME.ds.index` the
end of each document as uint64. A document may begin with [CLS] and end with [SEP] or another token
that the pipeline put there; shards hold documents without these.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modernbert.data.corpus_files import CorpusFile, find_files
from modernbert.data.documents import WorkUnit
from modernbert.data.records import RecordRules, Skipped
from modernbert.data.shard_files import SpecialTokens
from modernbert.data.spill import Spill, SpilledRun, document_keys
from modernbert.data.tokenizing import OnProgress, PrepareProgress
from modernbert.errors import DocumentError, InputError

Reencode = Callable[[list[int]], list[int]]

_SUFFIX, _INDEX_SUFFIX = ".ds", ".ds.index"
# How many documents of each file are looked at, of at most so many tokens.
_CHECKED_DOCUMENTS, _CHECKED_TOKENS = 16, 4096


def find_token_files(inputs: Iterable[Path | str]) -> list[CorpusFile]:
    """List the token files of the inputs.

    Raises:
        DocumentError: An input is missing, or there is no token file.
    """
    inputs = list(inputs)
    files = [file for file in find_files(inputs) if file.path.endswith(_SUFFIX)]
    if not files:
        names = ", ".join(str(given) for given in inputs)
        raise DocumentError(
            f"{names}: found no token files of datatrove, which are called NAME{_SUFFIX}"
        )
    return files


@dataclass(frozen=True)
class TokenFile:
    """The documents of one file.

    Attributes:
        ends: (num_documents,) int64. Where each document ends in `tokens`.
        tokens: (num_tokens,) uint16 or uint32.
    """

    path: str
    ends: np.ndarray
    tokens: np.ndarray

    @classmethod
    def open(cls, path: str) -> "TokenFile":
        """Map a file into memory and read its index.

        Raises:
            DocumentError: The file has no index, or the index does not fit it.
        """
        try:
            index = np.fromfile(path.removesuffix(_SUFFIX) + _INDEX_SUFFIX, dtype="<u8")
        except OSError:
            raise DocumentError(
                f"{path}: has no {_INDEX_SUFFIX}next to it; write it with save_index=True"
            ) from None
        ends = index.astype(np.int64)
        num_bytes, num_tokens = Path(path).stat().st_size, int(ends[-1]) if len(ends) else 0
        ascend = bool((np.diff(ends, prepend=0) >= 0).all())
        if not ascend or num_bytes not in (2 * num_tokens, 4 * num_tokens):
            raise DocumentError(f"{path}: {num_bytes} bytes do not fit its index; write it again")
        if not num_tokens:
            return cls(path, ends, np.empty(0, dtype="<u2"))
        dtype = "<u2" if num_bytes == 2 * num_tokens else "<u4"
        return cls(path, ends, np.memmap(path, dtype=dtype, mode="r"))

    def documents(self, first: int = 0) -> Iterator[np.ndarray]:
        """Yield the documents from a number on."""
        start = int(self.ends[first - 1]) if first else 0
        for end in self.ends[first:].tolist():
            yield self.tokens[start:end]
            start = end


@dataclass(frozen=True, kw_only=True)
class TokenFileImporter:
    """Spills the documents of token files, each with its random key.

    Attributes:
        reencode: Decodes ids and encodes the text again; most documents must get the same ids.
    """

    spill: Spill
    seed: int
    strict: bool
    run_tokens: int
    vocab_size: int
    special_token_ids: SpecialTokens
    end_token_id: int | None
    reencode: Reencode

    def run(self, units: Sequence[WorkUnit], on_progress: OnProgress) -> None:
        """Spill the files that are not finished, each from its last stored run on.

        Raises:
            InputError: The ids belong to another tokenizer.
            DocumentError: A file cannot be used.
        """
        self.spill.folder.mkdir(exist_ok=True)
        done = documents = tokens = 0
        total = sum(unit.num_bytes for unit in units)
        for unit in units:
            if self.spill.finished(unit.index) is None:
                self._spill_file(unit)
            runs = self.spill.runs(unit.index)
            done += unit.num_bytes
            documents += sum(run.num_documents for run in runs)
            tokens += sum(run.num_tokens for run in runs)
            on_progress(
                PrepareProgress(
                    stage="tokenizing",
                    done=done,
                    total=total,
                    documents=documents,
                    tokens=tokens,
                )
            )

    def _spill_file(self, unit: WorkUnit) -> None:
        file = TokenFile.open(unit.parts[0].file.path)
        self._check_tokenizer(file)
        runs = self.spill.runs(unit.index)
        number = runs[-1].num_read if runs else 0
        run = _Run(unit.index, len(runs), number)
        for document in file.documents(number):
            number += 1
            name = f"{file.path}, document {number}"
            rules = RecordRules(skipped=run.skipped, strict=self.strict)
            run.add(number - 1, self._inner(document, name, rules))
            if run.num_tokens >= self.run_tokens:
                run = self._store(run, number)
        self._store(run, number)
        skipped = Skipped()
        for stored in self.spill.runs(unit.index):
            skipped.update(stored.tokenless)
        if not run.documents:  # what was skipped at the end has no run to be told in
            skipped.update(run.skipped)
        self.spill.finish_unit(unit.index, skipped)

    def _store(self, run: "_Run", num_read: int) -> "_Run":
        if not run.documents:
            return run
        keys = document_keys(self.seed, run.unit, run.first, num_read)
        stored = SpilledRun(
            unit=run.unit,
            number=run.number,
            num_documents=len(run.documents),
            num_tokens=run.num_tokens,
            num_read=num_read,
            tokenless=run.skipped,
        )
        chosen = keys[np.array(run.numbers) - run.first]
        self.spill.write_run(stored, chosen, run.documents)
        return _Run(run.unit, run.number + 1, num_read)

    def _inner(self, document: np.ndarray, name: str, rules: RecordRules) -> np.ndarray:
        """A document without its first and last special tokens; empty when it is to be skipped."""
        inner = self._stripped(document)
        if not len(inner):
            rules.skip(name, "no tokens")
            return inner
        if (highest := int(inner.max())) >= self.vocab_size:
            raise InputError(
                f"{name}: token id {highest} is outside the vocabulary of {self.vocab_size}; give "
                "the tokenizer that these files were written with"
            )
        special = self.special_token_ids
        if np.isin(inner, [special.cls, special.sep, special.pad, special.mask]).any():
            rules.skip(name, "special tokens within the text")
            return inner[:0]
        return self.spill.as_tokens(inner)

    def _stripped(self, document: np.ndarray) -> np.ndarray:
        special = self.special_token_ids
        first = int(len(document) > 0 and document[0] == special.cls)
        last = len(document)
        while last > first and document[last - 1] in (special.sep, self.end_token_id):
            last -= 1
        return document[first:last]

    def _check_tokenizer(self, file: TokenFile) -> None:
        """Check whether documents get the same ids when they are decoded and encoded again."""
        checked = same = 0
        for document in file.documents():
            inner = self._stripped(document)
            if not 0 < len(inner) <= _CHECKED_TOKENS or int(inner.max()) >= self.vocab_size:
                continue
            checked += 1
            same += self.reencode(inner.tolist()) == inner.tolist()
            if checked == _CHECKED_DOCUMENTS:
                break
        if 2 * same < checked:
            raise InputError(
                f"{file.path}: {checked - same} of {checked} documents have other ids in this "
                "tokenizer; use the tokenizer that these files were written with"
            )


class _Run:
    """Documents that are to be a run."""

    def __init__(self, unit: int, number: int, first: int) -> None:
        self.unit, self.number, self.first = unit, number, first
        self.numbers: list[int] = []
        self.documents: list[np.ndarray] = []
        self.num_tokens = 0
        self.skipped = Skipped()

    def add(self, number: int, tokens: np.ndarray) -> None:
        if len(tokens):
            self.numbers.append(number)
            self.documents.append(tokens)
            self.num_tokens += len(tokens)
